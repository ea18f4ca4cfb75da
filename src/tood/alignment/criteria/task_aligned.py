"""Task Alignment Learning (TOOD, section 3.2): what the network's scores and boxes are pulled towards."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import ClassVar, Literal

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
    within_first,
)
from tood.alignment.losses import focal_loss, quality_focal_loss
from tood.boxes import centerness


@dataclass(frozen=True)
class TaskAlignedCriterionConfig:
    """Assigners and loss weights; the defaults are the paper's.

    Attributes:
        assigner: gives the positives of the task-aligned epochs.
        warm_up_assigner: gives those of the first epochs, when scores and boxes do not yet mean anything.
        warm_up_epochs: so many they are (published: 4), null for no such limit.
        warm_up_share: they end at the latest after this share of the run.
        classification_weight, box_weight: factors of the two losses.
        focal_alpha, focal_gamma: of the focal loss in the warm-up.
        quality_beta: exponent of the quality focal loss after it.
        positives: who gives them after the warm-up, the "task_aligned" assigner or the "geometric" one of the warm-up.
        losses: what is minimised after the warm-up: scores pulled towards the alignment ("task_aligned"), which also
            weighs the boxes, or the losses of the warm-up ("focal"). Both are for comparisons; the paper has neither.
        trains_quality: whether a head's judgement of its boxes (`DensePredictions.quality`) learns anything: here the
            class scores themselves say how good a box is.
    """

    trains_quality: ClassVar[bool] = False

    kind: Literal["task_aligned"] = "task_aligned"
    assigner: TaskAlignedAssigner = field(default_factory=TaskAlignedAssigner)
    warm_up_assigner: ATSSAssigner = field(default_factory=ATSSAssigner)
    warm_up_epochs: int | None = 4
    warm_up_share: float = 1 / 3
    classification_weight: float = 1.0
    box_weight: float = 2.0
    focal_alpha: float = 0.25
    focal_gamma: float = 2.0
    quality_beta: float = 2.0
    positives: Literal["task_aligned", "geometric"] = "task_aligned"
    losses: Literal["task_aligned", "focal"] = "task_aligned"

    def __post_init__(self) -> None:
        check_share("warm_up_share", self.warm_up_share)

    def in_warm_up(self, progress: Progress) -> bool:
        """Whether the geometric assigner is in force."""
        return within_first(progress, self.warm_up_epochs, self.warm_up_share)

    def build(self) -> TaskAlignedCriterion:
        """The criterion."""
        return TaskAlignedCriterion(self)


class TaskAlignedCriterion(BatchCriterion):
    """Assigns and weighs: ATSS, focal loss and centerness in the warm-up; TAL and its soft targets after it."""

    terms = ("cls", "box")

    def __init__(self, config: TaskAlignedCriterionConfig | None = None) -> None:
        self.config = config or TaskAlignedCriterionConfig()

    def losses(self, batch: CriterionInput) -> Losses:
        """The progress decides whether the warm-up lasts.

        Returns:
            Each loss divided by the sum of its own weights over the batch.
        """
        warm_up = batch.progress is not None and self.config.in_warm_up(batch.progress)
        assignment = self._assignment(batch, warm_up)
        if warm_up or self.config.losses == "focal":
            return self._focal_losses(batch, assignment)
        return self._aligned_losses(batch, assignment)

    def _assignment(self, batch: CriterionInput, warm_up: bool) -> Assignment:
        config, priors, targets, valid = self.config, batch.predictions.priors, batch.targets, batch.valid
        if warm_up:
            return config.warm_up_assigner(priors, targets, valid)
        scores, boxes = batch.scores.detach(), batch.boxes.detach()
        scores = scores.sigmoid() if batch.predictions.logits else scores
        if config.positives == "geometric":
            return config.assigner.scored(config.warm_up_assigner(priors, targets, valid), scores, boxes, targets)
        return config.assigner(scores, boxes, priors.centres, targets, valid)

    def _focal_losses(self, batch: CriterionInput, assignment: Assignment) -> Losses:
        config, scores, positive = self.config, batch.scores, assignment.positive
        assignment = replace(assignment, target_scores=positive.to(scores.dtype))
        wanted = class_targets(assignment, scores.shape[2])
        return self._weighted(
            batch,
            focal_loss(scores, wanted, config.focal_alpha, config.focal_gamma, logits=batch.predictions.logits),
            assignment,
            classification_sum=positive.sum(),
            box_weights=centerness(batch.predictions.priors.centres, assignment.boxes) * positive,
        )

    def _aligned_losses(self, batch: CriterionInput, assignment: Assignment) -> Losses:
        scores = batch.scores
        wanted = class_targets(assignment, scores.shape[2])
        return self._weighted(
            batch,
            quality_focal_loss(scores, wanted, self.config.quality_beta, logits=batch.predictions.logits),
            assignment,
            classification_sum=assignment.target_scores.sum(),
            box_weights=assignment.target_scores,
        )

    def _weighted(
        self,
        batch: CriterionInput,
        classification: Tensor,  # [B, N, C]
        assignment: Assignment,
        classification_sum: Tensor,
        box_weights: Tensor,  # [B, N]
    ) -> Losses:
        own = {"cls": classification_sum.detach(), "box": box_weights.sum().detach()}
        averages = batch.divisors(own)
        class_weight = self.config.classification_weight / averages["cls"]
        box_weight = self.config.box_weight / averages["box"]
        per_prior = {
            "cls": class_losses(classification, counted_priors(assignment, batch.valid), class_weight),
            "box": box_losses(batch.boxes, assignment, box_weights) * box_weight,
        }
        return Losses(per_prior, assignment, own)
