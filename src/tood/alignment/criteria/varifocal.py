"""Task alignment learning as PP-YOLOE has it (Xu et al. 2022): varifocal loss, GIoU and distribution focal loss."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, Literal

import torch
from torch import Tensor

from tood.alignment.assigners import Assignment, ATSSAssigner, TaskAlignedAssigner
from tood.alignment.criteria.criterion import (
    BatchCriterion,
    CriterionInput,
    Losses,
    Progress,
    box_losses,
    check_share,
    class_losses,
    class_targets,
    counted_priors,
    distribution_losses,
    within_first,
)
from tood.alignment.losses import varifocal_loss

# Distances that distributions learn end so many bins before the last one.
_BINS_MARGIN = 0.01
# Of a distribution's logits none counts as farther below the largest, as in Paddle's cross entropy.
_REACH = 64.0


def _task_aligned() -> TaskAlignedAssigner:
    return TaskAlignedAssigner(topk=13, inside="before", margin=1e-9, epsilon=1e-9, rivals="all")


def _geometric() -> ATSSAssigner:
    return ATSSAssigner(topk=9, margin=1e-9, above=True, rivals="all")


@dataclass(frozen=True)
class VarifocalCriterionConfig:
    """Assigners and loss weights; the defaults are PP-YOLOE's, of 300 epochs.

    Attributes:
        assigner: gives the positives of the task-aligned epochs, and their target scores.
        warm_up_assigner: gives the positives of the first epochs; the overlap of what is predicted there with the
            ground truth is the target score.
        warm_up_epochs: so many they are, null for no such limit.
        warm_up_share: they end at the latest after this share of the run.
        classification_weight, box_weight, distribution_weight: factors of the three losses; the last one counts for
            heads that predict distributions.
        varifocal_alpha, varifocal_gamma: of the varifocal loss.
        trains_quality: whether a head's judgement of its boxes (`DensePredictions.quality`) learns anything: here the
            class scores themselves say how good a box is.
    """

    trains_quality: ClassVar[bool] = False

    kind: Literal["varifocal"] = "varifocal"
    assigner: TaskAlignedAssigner = field(default_factory=_task_aligned)
    warm_up_assigner: ATSSAssigner = field(default_factory=_geometric)
    warm_up_epochs: int | None = 100
    warm_up_share: float = 1 / 3
    classification_weight: float = 1.0
    box_weight: float = 2.5
    distribution_weight: float = 0.5
    varifocal_alpha: float = 0.75
    varifocal_gamma: float = 2.0

    def __post_init__(self) -> None:
        check_share("warm_up_share", self.warm_up_share)

    def in_warm_up(self, progress: Progress) -> bool:
        """Whether the geometric assigner is in force."""
        return within_first(progress, self.warm_up_epochs, self.warm_up_share)

    def build(self) -> VarifocalCriterion:
        """The criterion."""
        return VarifocalCriterion(self)


class VarifocalCriterion(BatchCriterion):
    """Assigns and weighs: ATSS in the first epochs, TAL after them, soft targets and the same losses in both."""

    terms = ("cls", "box", "dfl")

    def __init__(self, config: VarifocalCriterionConfig | None = None) -> None:
        self.config = config or VarifocalCriterionConfig()

    def losses(self, batch: CriterionInput) -> Losses:
        """The progress decides whether the warm-up lasts; `distributions` learn the sides of the ground truth.

        Returns:
            Each loss divided by the sum of all target scores.
        """
        config, predictions, valid = self.config, batch.predictions, batch.valid
        # Probabilities, as published: those that round to 1 where nothing is cost 100.
        scores = predictions.probabilities().float()
        assignment = self._assignment(batch, scores.detach())
        wanted = class_targets(assignment, scores.shape[2])
        labels = torch.zeros_like(wanted).scatter_(
            2, assignment.labels.clamp(min=0)[..., None], assignment.positive[..., None].to(wanted.dtype)
        )
        own = {"all": assignment.target_scores.sum()}
        average = batch.divisors(own)["all"]
        classification = varifocal_loss(scores, wanted, labels, config.varifocal_alpha, config.varifocal_gamma)
        weights = assignment.target_scores
        per_prior = {
            "cls": class_losses(
                classification, counted_priors(assignment, valid), config.classification_weight / average
            ),
            "box": box_losses(batch.boxes, assignment, weights) * (config.box_weight / average),
        }
        if predictions.distributions is not None:
            per_prior["dfl"] = distribution_losses(
                _within_reach(predictions.distributions.float()),
                predictions.priors,
                assignment,
                weights,
                _BINS_MARGIN,
            ) * (config.distribution_weight / average)
        return Losses(per_prior, assignment, own)

    def _assignment(self, batch: CriterionInput, probabilities: Tensor) -> Assignment:
        config, priors, boxes = self.config, batch.predictions.priors, batch.boxes.detach()
        if batch.progress is not None and config.in_warm_up(batch.progress):
            return config.warm_up_assigner(priors, batch.targets, batch.valid).with_overlap_of(boxes)
        return config.assigner(probabilities, boxes, priors.centres, batch.targets, batch.valid)


def _within_reach(logits: Tensor) -> Tensor:
    """[..., R] logits cut at so much below the largest; gradients are those of logits that are not cut."""
    lowest = logits.detach().amax(dim=-1, keepdim=True) - _REACH
    return logits + (torch.maximum(logits.detach(), lowest) - logits.detach())
