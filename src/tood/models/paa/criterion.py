"""What PAA minimises (Kim and Lee 2020): focal loss, GIoU weighted by IoU, and the IoU itself."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from tood.alignment import AnchorScoringAssigner, Assignment, focal_loss
from tood.alignment.criteria.criterion import (
    BatchCriterion,
    CriterionInput,
    Losses,
    box_losses,
    class_losses,
    class_targets,
    counted_priors,
    mean_over_processes,
    real_images,
)
from tood.boxes import iou_pairs

# What the reference adds to a sum of weights, or takes a weight to be at least.
_SMALLEST_SUM = torch.finfo(torch.float32).eps
_SMALLEST_WEIGHT = 1e-12


@dataclass(frozen=True)
class PAACriterionConfig:
    """Assigner and loss weights; the defaults are the published ones.

    Attributes:
        assigner: gives the positives, by the losses themselves.
        classification_weight, box_weight, iou_weight: factors of the three losses.
        focal_alpha, focal_gamma: of the focal loss.
        trains_quality: whether a head's judgement of its boxes (`DensePredictions.quality`) learns anything.
    """

    trains_quality: ClassVar[bool] = True

    kind: Literal["paa"] = "paa"
    assigner: AnchorScoringAssigner = field(default_factory=AnchorScoringAssigner)
    classification_weight: float = 1.0
    box_weight: float = 1.3
    iou_weight: float = 0.5
    focal_alpha: float = 0.25
    focal_gamma: float = 2.0

    def build(self) -> PAACriterion:
        """The criterion."""
        return PAACriterion(self)


class PAACriterion(BatchCriterion):
    """Scores anchors by the losses that they would have, assigns by these, and weighs boxes by their IoU."""

    terms = ("cls", "box", "iou")

    def __init__(self, config: PAACriterionConfig | None = None) -> None:
        self.config = config or PAACriterionConfig()

    def losses(self, batch: CriterionInput) -> Losses:
        """Anchors are scored in every epoch; `quality` learns the IoU of its box with the ground truth.

        Returns:
            Class losses divided by the number of positives, at least the number of images; IoU losses by the number of
            positives; box losses, which the IoU weighs, by the sum of that, which may be less than 1.
        """
        config, predictions, valid = self.config, batch.predictions, batch.valid
        scores, boxes = batch.scores, batch.boxes
        assignment = config.assigner(
            predictions.priors,
            batch.targets,
            lambda candidates: self._costs(scores.detach(), boxes.detach(), candidates, predictions.logits),
            valid,
        )
        positive = assignment.positive
        overlap = iou_pairs(boxes.detach(), assignment.boxes) * positive  # [B, N]
        own = {
            "positives": positive.sum(),
            "images": real_images(assignment, valid).sum(),
            "box": overlap.sum(),
        }
        sums = own if batch.weight_sums is None else batch.weight_sums
        positives, images = (mean_over_processes(sums[name]) for name in ("positives", "images"))
        overlaps = mean_over_processes(sums["box"], _SMALLEST_SUM)
        class_weight = config.classification_weight / torch.maximum(positives, images)
        classification = self._focal(scores, assignment, predictions.logits)
        counted = counted_priors(assignment, valid)
        weights = overlap.clamp(min=_SMALLEST_WEIGHT)
        per_prior = {
            "cls": class_losses(classification, counted, class_weight),
            "box": box_losses(boxes, assignment, weights) * (config.box_weight / overlaps),
        }
        if predictions.quality is not None:
            entropy = F.binary_cross_entropy_with_logits(predictions.quality.float(), overlap, reduction="none")
            per_prior["iou"] = torch.where(positive, entropy, 0) * (config.iou_weight / positives)
        return Losses(per_prior, assignment, own)

    def _costs(self, scores: Tensor, boxes: Tensor, candidates: Assignment, logits: bool) -> Tensor:
        """[B, N] what the candidates would cost as positives (equation 5), without the IoU branch."""
        # Two anchors alone in the lower component are equally dense but for rounding, which then decides: sums are
        # taken in the reference's order.
        classification = self._focal(scores.contiguous(), candidates, logits).sum(dim=2)
        sides = box_losses(boxes, candidates, candidates.target_scores)
        return self.config.classification_weight * classification + self.config.box_weight * sides

    def _focal(self, scores: Tensor, assignment: Assignment, logits: bool) -> Tensor:
        """[B, N, C] the class losses under an assignment."""
        config = self.config
        wanted = class_targets(assignment, scores.shape[2])
        return focal_loss(scores, wanted, config.focal_alpha, config.focal_gamma, logits=logits)
