"""What ATSS minimises (Zhang et al. 2020): focal loss, GIoU weighted by centerness, and the centerness itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from tood.alignment.assigners import ATSSAssigner
from tood.alignment.criteria.criterion import (
    Losses,
    Progress,
    box_losses,
    class_losses,
    class_targets,
    counted_priors,
    mean_over_processes,
    positives_of_images,
    valid_priors,
    without_autocast,
)
from tood.alignment.losses import focal_loss
from tood.boxes import centerness
from tood.structures import DensePredictions, Targets


@dataclass(frozen=True)
class ATSSCriterionConfig:
    """Assigner and loss weights; the defaults are the published ones.

    Attributes:
        assigner: gives the positives, by geometry alone.
        classification_weight, box_weight, centerness_weight: factors of the three losses.
        focal_alpha, focal_gamma: of the focal loss.
        trains_quality: whether a head's judgement of its boxes (`DensePredictions.quality`) learns anything.
    """

    trains_quality: ClassVar[bool] = True

    kind: Literal["atss"] = "atss"
    assigner: ATSSAssigner = field(default_factory=ATSSAssigner)
    classification_weight: float = 1.0
    box_weight: float = 2.0
    centerness_weight: float = 1.0
    focal_alpha: float = 0.25
    focal_gamma: float = 2.0

    def build(self) -> ATSSCriterion:
        """The criterion."""
        return ATSSCriterion(self)


class ATSSCriterion:
    """Assigns by anchors, weighs boxes by centerness.

    It never asks which network made the predictions. Usable in any training loop::

        losses = ATSSCriterion()(predictions, targets, padded_sizes)
        losses.total.backward()
    """

    terms = ("cls", "box", "centerness")

    def __init__(self, config: ATSSCriterionConfig | None = None) -> None:
        self.config = config or ATSSCriterionConfig()

    def __call__(
        self,
        predictions: DensePredictions,
        targets: Sequence[Targets],
        padded_sizes: Tensor | None = None,
        progress: Progress | None = None,
        weight_sums: Mapping[str, Tensor] | None = None,
    ) -> Losses:
        """Losses of a batch.

        Args:
            predictions: the network's, scores as probabilities or logits, boxes in input pixels; where they carry a
                `quality`, it learns the centerness of its prior in the ground truth.
            targets: B ground truths in input pixels.
            padded_sizes: [B, 2] height, width of each image padded to the network's divisor, in input pixels; priors
                beyond (padding that only larger images of the batch caused) are not assigned. None for no such padding.
            progress: changes nothing: the assignment is geometric from the first epoch to the last.
            weight_sums: see `Criterion`.

        Returns:
            Class and centerness losses divided by the number of positives, an image without any counting as one
            (without any valid prior: as none); the box losses, which the centerness weighs, by the sum of that. Of
            several processes both are sums over all of them, at least 1, divided by their number.
        """
        config, priors = self.config, predictions.priors
        with without_autocast(predictions.scores.device):
            scores = predictions.scores.float()
            valid = valid_priors(priors, padded_sizes)
            assignment = config.assigner(priors, targets, valid)
            positive = assignment.positive
            centred = centerness(priors.centres, assignment.boxes) * positive  # [B, N]
            number = positives_of_images(assignment, valid).sum()
            own = {"cls": number, "box": centred.sum(), "centerness": number}
            averages = {name: mean_over_processes(value) for name, value in (weight_sums or own).items()}
            classification = focal_loss(
                scores,
                class_targets(assignment, scores.shape[2]),
                config.focal_alpha,
                config.focal_gamma,
                logits=predictions.logits,
            )
            boxes = box_losses(predictions.boxes.float(), assignment, centred)
            counted = counted_priors(assignment, valid)
            per_prior = {
                "cls": class_losses(classification, counted, config.classification_weight / averages["cls"]),
                "box": boxes * (config.box_weight / averages["box"]),
            }
            if predictions.quality is not None:
                entropy = F.binary_cross_entropy_with_logits(predictions.quality.float(), centred, reduction="none")
                per_prior["centerness"] = torch.where(positive, entropy, 0) * (
                    config.centerness_weight / averages["centerness"]
                )
            return Losses(per_prior, assignment, own)
