"""Task Alignment Learning (TOOD, section 3.2): what the network's scores and boxes are pulled towards."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
import torch.distributed as dist
from torch import Tensor

from tood.alignment.assigners import Assignment, ATSSAssigner, TaskAlignedAssigner
from tood.alignment.losses import focal_loss, giou_loss, quality_focal_loss
from tood.boxes import centerness
from tood.structures import DensePredictions, Priors, Targets


@dataclass(frozen=True)
class TaskAlignedCriterionConfig:
    """Assigners and loss weights; the defaults are the paper's.

    Attributes:
        assigner: gives the positives of the task-aligned epochs.
        warm_up_assigner: gives those of the first epochs, when scores and boxes do not yet mean anything.
        classification_weight, box_weight: factors of the two losses.
        focal_alpha, focal_gamma: of the focal loss in the warm-up.
        quality_beta: exponent of the quality focal loss after it.
    """

    assigner: TaskAlignedAssigner = field(default_factory=TaskAlignedAssigner)
    warm_up_assigner: ATSSAssigner = field(default_factory=ATSSAssigner)
    classification_weight: float = 1.0
    box_weight: float = 2.0
    focal_alpha: float = 0.25
    focal_gamma: float = 2.0
    quality_beta: float = 2.0


@dataclass(frozen=True)
class Losses:
    """The two losses with their weights, and the places they come from.

    Attributes:
        classification, box: scalars; training minimises their sum.
        classification_per_prior, box_per_prior: [B, N], adding up to the scalars.
        assignment: which ground truth each prior answered for.
    """

    classification: Tensor
    box: Tensor
    classification_per_prior: Tensor
    box_per_prior: Tensor
    assignment: Assignment

    @property
    def total(self) -> Tensor:
        """Scalar, what training minimises."""
        return self.classification + self.box


class TaskAlignedCriterion:
    """Assigns and weighs: ATSS, focal loss and centerness in the warm-up; TAL and its soft targets after it.

    It never asks which network made the predictions. Usable in any training loop::

        losses = TaskAlignedCriterion()(predictions, targets, padded_sizes, warm_up=epoch < 4)
        losses.total.backward()
    """

    def __init__(self, config: TaskAlignedCriterionConfig | None = None) -> None:
        self.config = config or TaskAlignedCriterionConfig()

    def __call__(
        self,
        predictions: DensePredictions,
        targets: Sequence[Targets],
        padded_sizes: Tensor | None = None,
        warm_up: bool = False,
    ) -> Losses:
        """Losses of a batch.

        Args:
            predictions: the network's, scores as probabilities or logits, boxes in input pixels.
            targets: B ground truths in input pixels.
            padded_sizes: [B, 2] height, width of each image padded to the network's divisor, in input pixels; priors
                beyond (padding that only larger images of the batch caused) are not assigned. None for no such padding.
            warm_up: whether the first, geometric assignment is still in force.

        Returns:
            Each loss divided by the sum of its own weights over the batch, averaged over processes, at least 1.
        """
        with torch.autocast(predictions.scores.device.type, enabled=False):
            scores = predictions.probabilities().float()
            boxes = predictions.boxes.float()
            valid = None if padded_sizes is None else valid_priors(predictions.priors, padded_sizes)
            if warm_up:
                return self._warm_up_losses(scores, boxes, predictions.priors, targets, valid)
            return self._aligned_losses(scores, boxes, predictions.priors, targets, valid)

    def _warm_up_losses(
        self, scores: Tensor, boxes: Tensor, priors: Priors, targets: Sequence[Targets], valid: Tensor | None
    ) -> Losses:
        config = self.config
        assignment = config.warm_up_assigner(priors, targets, valid)
        wanted = class_targets(assignment, scores.shape[2])
        classification = focal_loss(scores, wanted, config.focal_alpha, config.focal_gamma)
        return self._weighted(
            classification,
            boxes,
            assignment,
            valid,
            classification_average=assignment.positive.sum(),
            box_weights=centerness(priors.centres, assignment.boxes) * assignment.positive,
        )

    def _aligned_losses(
        self, scores: Tensor, boxes: Tensor, priors: Priors, targets: Sequence[Targets], valid: Tensor | None
    ) -> Losses:
        config = self.config
        assignment = config.assigner(scores, boxes, priors.centres, targets, valid)
        wanted = class_targets(assignment, scores.shape[2])
        return self._weighted(
            quality_focal_loss(scores, wanted, config.quality_beta),
            boxes,
            assignment,
            valid,
            classification_average=assignment.target_scores.sum(),
            box_weights=assignment.target_scores,
        )

    def _weighted(
        self,
        classification: Tensor,  # [B, N, C]
        boxes: Tensor,  # [B, N, 4]
        assignment: Assignment,
        valid: Tensor | None,  # [B, N]
        classification_average: Tensor,
        box_weights: Tensor,  # [B, N]
    ) -> Losses:
        per_prior = classification.sum(dim=2)  # [B, N]
        if valid is not None:
            per_prior = per_prior * valid
        per_prior = per_prior * (self.config.classification_weight / mean_over_processes(classification_average))
        # Choosing the positive rows would make the host wait for the device: negatives all become one constant pair
        # of equal boxes instead, which has no loss and sends no gradient back.
        positive = assignment.positive[..., None]
        unit = torch.cat([torch.zeros_like(boxes[..., :2]), torch.ones_like(boxes[..., 2:])], dim=-1)
        box = giou_loss(torch.where(positive, boxes, unit), torch.where(positive, assignment.boxes, unit))
        box = box * box_weights
        box = box * (self.config.box_weight / mean_over_processes(box_weights.sum()))
        return Losses(per_prior.sum(), box.sum(), per_prior, box, assignment)


def class_targets(assignment: Assignment, classes: int) -> Tensor:
    """[B, N, C]: the target score on the assigned class, 0 elsewhere."""
    wanted = assignment.target_scores.new_zeros(*assignment.labels.shape, classes)
    return wanted.scatter_(2, assignment.labels.clamp(min=0)[..., None], assignment.target_scores[..., None])


def valid_priors(priors: Priors, padded_sizes: Tensor) -> Tensor:
    """[B, N] bool: whether a prior's cell lies in its own image's padded area.

    A cell is valid where its index is below ceil(padded side / stride).

    Args:
        priors: N places.
        padded_sizes: [B, 2] height, width in input pixels.
    """
    # Priors sit on the cell's corner or in its middle: floor division finds the cell's index for both.
    cells = torch.div(priors.centres, priors.strides[:, None], rounding_mode="floor")  # [N, 2] column, row
    limits = torch.ceil(padded_sizes.flip(1)[:, None] / priors.strides[:, None])  # [B, N, 2]
    return (cells < limits).all(dim=2)


def mean_over_processes(value: Tensor) -> Tensor:
    """The mean of a scalar over all training processes, at least 1."""
    value = value.detach().float()
    if dist.is_available() and dist.is_initialized():
        value = value.clone()
        dist.all_reduce(value)
        value = value / dist.get_world_size()
    return value.clamp(min=1)
