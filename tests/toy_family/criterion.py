"""What the family minimises: every place in a ground truth answers for it, the smallest where several hold it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from tood.alignment import Assignment, Losses, Progress, focal_loss
from tood.alignment.assigners.assignment import PaddedTargets
from tood.alignment.criteria.criterion import (
    box_losses,
    class_losses,
    class_targets,
    mean_over_processes,
    valid_priors,
)
from tood.boxes import area, inside_distance, iou_pairs
from tood.structures import DensePredictions, Priors, Targets


@dataclass(frozen=True)
class InsideCriterionConfig:
    """Loss weights.

    Attributes:
        box_weight: factor of the box loss; that of the classes has 1.
    """

    trains_quality: ClassVar[bool] = False

    kind: Literal["inside"] = "inside"
    box_weight: float = 2.0

    def build(self) -> InsideCriterion:
        """The criterion."""
        return InsideCriterion(self)


class InsideCriterion:
    """Focal loss of the classes, GIoU of the boxes."""

    terms = ("cls", "box")

    def __init__(self, config: InsideCriterionConfig) -> None:
        self.config = config

    def __call__(
        self,
        predictions: DensePredictions,
        targets: Sequence[Targets],
        padded_sizes: Tensor | None = None,
        progress: Progress | None = None,
        weight_sums: Mapping[str, Tensor] | None = None,
    ) -> Losses:
        """Losses of a batch, divided by the number of positives; see `Criterion`."""
        with torch.autocast(predictions.scores.device.type, enabled=False):
            scores, valid = predictions.scores.float(), valid_priors(predictions.priors, padded_sizes)
            assignment = _inside(predictions, targets, valid)
            own = {"all": assignment.positive.sum()}
            average = mean_over_processes((weight_sums or own)["all"])
            classification = focal_loss(scores, class_targets(assignment, scores.shape[2]), logits=predictions.logits)
            per_prior = {
                "cls": class_losses(classification, valid, 1 / average),
                "box": box_losses(predictions.boxes, assignment, assignment.target_scores)
                * (self.config.box_weight / average),
            }
            return Losses(per_prior, assignment, own)


def _inside(predictions: DensePredictions, targets: Sequence[Targets], valid: Tensor | None) -> Assignment:
    truths = PaddedTargets.of(targets)
    if not truths.boxes.shape[1]:
        truths = _one_absent(truths)
    priors: Priors = predictions.priors
    inside = inside_distance(priors.centres, truths.boxes[:, :, None]) > 0  # [B, G, N]
    inside &= truths.present[..., None] if valid is None else truths.present[..., None] & valid[:, None]
    sizes = torch.where(inside, area(truths.boxes)[..., None], torch.inf)
    index = sizes.argmin(dim=1)  # [B, N]
    positive = inside.any(dim=1)
    boxes = truths.boxes.gather(1, index[..., None].expand(-1, -1, 4)) * positive[..., None]
    overlaps = iou_pairs(predictions.boxes.detach(), boxes) * positive
    labels = torch.where(positive, truths.labels.gather(1, index), -1)
    return Assignment(torch.where(positive, index, -1), labels, boxes, overlaps, overlaps, positive.float())


def _one_absent(truths: PaddedTargets) -> PaddedTargets:
    """For a batch of images without any object, one that is nowhere."""
    batch = len(truths.boxes)
    return PaddedTargets(
        truths.boxes.new_zeros(batch, 1, 4), truths.labels.new_zeros(batch, 1), truths.present.new_zeros(batch, 1)
    )
