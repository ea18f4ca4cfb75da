"""Task Alignment Learning (TOOD, section 3.2): what the network's scores and boxes are pulled towards."""

from __future__ import annotations

from dataclasses import dataclass, field
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
        if batch.progress is not None and self.config.in_warm_up(batch.progress):
            return self._warm_up_losses(batch)
        return self._aligned_losses(batch)

    def _warm_up_losses(self, batch: CriterionInput) -> Losses:
        config, scores, priors = self.config, batch.scores, batch.predictions.priors
        assignment = config.warm_up_assigner(priors, batch.targets, batch.valid)
        wanted = class_targets(assignment, scores.shape[2])
        return self._weighted(
            batch,
            focal_loss(scores, wanted, config.focal_alpha, config.focal_gamma, logits=batch.predictions.logits),
            assignment,
            classification_sum=assignment.positive.sum(),
            box_weights=centerness(priors.centres, assignment.boxes) * assignment.positive,
        )

    def _aligned_losses(self, batch: CriterionInput) -> Losses:
        config, scores, predictions = self.config, batch.scores, batch.predictions
        probabilities = scores.sigmoid() if predictions.logits else scores
        assignment = config.assigner(probabilities, batch.boxes, predictions.priors.centres, batch.targets, batch.valid)
        wanted = class_targets(assignment, scores.shape[2])
        return self._weighted(
            batch,
            quality_focal_loss(scores, wanted, config.quality_beta, logits=predictions.logits),
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
