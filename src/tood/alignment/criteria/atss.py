"""What ATSS minimises (Zhang et al. 2020): focal loss, GIoU weighted by centerness, and the centerness itself."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F

from tood.alignment.assigners import ATSSAssigner
from tood.alignment.criteria.criterion import (
    BatchCriterion,
    CriterionInput,
    Losses,
    box_losses,
    class_losses,
    class_targets,
    counted_priors,
    positives_of_images,
)
from tood.alignment.losses import focal_loss
from tood.boxes import centerness


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


class ATSSCriterion(BatchCriterion):
    """Assigns by anchors, weighs boxes by centerness."""

    terms = ("cls", "box", "centerness")

    def __init__(self, config: ATSSCriterionConfig | None = None) -> None:
        self.config = config or ATSSCriterionConfig()

    def losses(self, batch: CriterionInput) -> Losses:
        """Geometry alone assigns, in every epoch; `quality` learns the centerness of its prior in the ground truth.

        Returns:
            Class and centerness losses divided by the number of positives, an image without any counting as one
            (without any valid prior: as none); the box losses, which the centerness weighs, by the sum of that.
        """
        config, predictions, valid = self.config, batch.predictions, batch.valid
        assignment = config.assigner(predictions.priors, batch.targets, valid)
        positive = assignment.positive
        centred = centerness(predictions.priors.centres, assignment.boxes) * positive  # [B, N]
        number = positives_of_images(assignment, valid).sum()
        own = {"cls": number, "box": centred.sum(), "centerness": number}
        averages = batch.divisors(own)
        classification = focal_loss(
            batch.scores,
            class_targets(assignment, batch.scores.shape[2]),
            config.focal_alpha,
            config.focal_gamma,
            logits=predictions.logits,
        )
        counted = counted_priors(assignment, valid)
        per_prior = {
            "cls": class_losses(classification, counted, config.classification_weight / averages["cls"]),
            "box": box_losses(batch.boxes, assignment, centred) * (config.box_weight / averages["box"]),
        }
        if predictions.quality is not None:
            entropy = F.binary_cross_entropy_with_logits(predictions.quality.float(), centred, reduction="none")
            per_prior["centerness"] = torch.where(positive, entropy, 0) * (
                config.centerness_weight / averages["centerness"]
            )
        return Losses(per_prior, assignment, own)
