"""What GFL minimises (Li et al. 2020): quality focal loss, GIoU by class score, distribution focal loss."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, Literal

import torch

from tood.alignment import ATSSAssigner, quality_focal_loss
from tood.alignment.criteria.criterion import (
    BatchCriterion,
    CriterionInput,
    Losses,
    box_losses,
    class_losses,
    class_targets,
    counted_priors,
    distribution_losses,
    positives_of_images,
)
from tood.boxes import iou_pairs


@dataclass(frozen=True)
class GFLCriterionConfig:
    """Assigner and loss weights; the defaults are the published ones.

    Attributes:
        assigner: gives the positives, by geometry alone.
        classification_weight, box_weight, distribution_weight: factors of the three losses.
        quality_beta: exponent of the quality focal loss.
        margin: the distribution's targets end so many bins before its last one.
        trains_quality: whether a head's judgement of its boxes (`DensePredictions.quality`) learns anything: here the
            class scores themselves say how good a box is.
    """

    trains_quality: ClassVar[bool] = False

    kind: Literal["gfl"] = "gfl"
    assigner: ATSSAssigner = field(default_factory=ATSSAssigner)
    classification_weight: float = 1.0
    box_weight: float = 2.0
    distribution_weight: float = 0.25
    quality_beta: float = 2.0
    margin: float = 0.1

    def build(self) -> GFLCriterion:
        """The criterion."""
        return GFLCriterion(self)


class GFLCriterion(BatchCriterion):
    """Assigns by anchors; a class score shall be the IoU of its box, and weighs what the box learns."""

    terms = ("cls", "box", "dfl")

    def __init__(self, config: GFLCriterionConfig | None = None) -> None:
        self.config = config or GFLCriterionConfig()

    def losses(self, batch: CriterionInput) -> Losses:
        """Geometry alone assigns, in every epoch; `distributions` learn the sides of the ground truth.

        Returns:
            Class losses divided by the number of positives, an image without any counting as one (without any valid
            prior: as none); box and distribution losses, which the best class score of their prior weighs, by the sum
            of that.
        """
        config, predictions, valid = self.config, batch.predictions, batch.valid
        scores, boxes = batch.scores, batch.boxes
        assignment = config.assigner(predictions.priors, batch.targets, valid)
        with torch.no_grad():
            overlap = iou_pairs(boxes, assignment.boxes) * assignment.positive  # [B, N]
            best = scores.amax(dim=2)
            weights = (best.sigmoid() if predictions.logits else best) * assignment.positive  # [B, N]
        own = {"cls": positives_of_images(assignment, valid).sum(), "box": weights.sum()}
        averages = batch.divisors(own)
        classification = quality_focal_loss(
            scores,
            class_targets(assignment, scores.shape[2]) * overlap[..., None],
            config.quality_beta,
            logits=predictions.logits,
        )
        counted = counted_priors(assignment, valid)
        per_prior = {
            "cls": class_losses(classification, counted, config.classification_weight / averages["cls"]),
            "box": box_losses(boxes, assignment, weights) * (config.box_weight / averages["box"]),
        }
        if predictions.distributions is not None:
            sides = distribution_losses(
                predictions.distributions.float(), predictions.priors, assignment, weights, config.margin
            )
            per_prior["dfl"] = sides * (config.distribution_weight / averages["box"])
        return Losses(per_prior, assignment, own)
