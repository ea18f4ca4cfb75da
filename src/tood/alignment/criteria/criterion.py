"""What every criterion gives (`Losses`) and what several of them need to get there."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar, Protocol, TypeAlias

import torch
import torch.distributed as dist
from torch import Tensor

from tood.alignment.assigners import Assignment
from tood.alignment.losses import distribution_focal_loss, giou_loss
from tood.boxes import encode_distances
from tood.errors import SettingError
from tood.structures import DensePredictions, Priors, Targets

BoxLoss: TypeAlias = Callable[[Tensor, Tensor], Tensor]
"""Of boxes at the same place, [..., 4], [..., 4] in one unit -> [...]; 0 where they are equal."""


@dataclass(frozen=True)
class Losses:
    """The losses by name with their weights, and the places they come from.

    Attributes:
        per_prior: [B, N] each, adding up to `terms`; "cls" and "box" in every criterion, others by criterion.
        assignment: which ground truth each prior answered for.
        weight_sums: scalars, the sums of weights in this process's batch that each loss is divided by (where they are
            not given: at least 1, and over all processes).
    """

    per_prior: Mapping[str, Tensor]
    assignment: Assignment
    weight_sums: Mapping[str, Tensor]

    @cached_property
    def terms(self) -> Mapping[str, Tensor]:
        """A scalar each, by name; training minimises their sum."""
        return {name: values.sum() for name, values in self.per_prior.items()}

    @property
    def total(self) -> Tensor:
        """Scalar, what training minimises."""
        return torch.stack(list(self.terms.values())).sum()


@dataclass(frozen=True)
class Progress:
    """How far a training run has come, by which a criterion with phases tells in which one it is.

    Attributes:
        epoch: completed passes over the training images.
        share: completed part of the whole run, 0 to 1.
    """

    epoch: int = 0
    share: float = 0.0


def within_first(progress: Progress, epochs: int | None, share: float) -> bool:
    """Whether a run is within its first epochs, which end at the latest after a share of it; None: only then."""
    return (epochs is None or progress.epoch < epochs) and progress.share < share - 1e-9


def check_share(name: str, value: float) -> None:
    """Raises a ToodError where a setting is no share of a whole."""
    if not 0 <= value <= 1:
        raise SettingError(name, f"is {value}: expected a number from 0 to 1")


class Criterion(Protocol):
    """What training asks of any criterion.

    A criterion is free to compute losses before it assigns, and to assign by them.
    """

    @property
    def terms(self) -> tuple[str, ...]:
        """Names of all losses that it may give, in the order in which they are shown."""

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
            predictions: of any network, scores as probabilities or logits, boxes in input pixels.
            targets: B ground truths in input pixels.
            padded_sizes: [B, 2] height, width of each image padded to the network's divisor, in input pixels; priors
                beyond (padding that only larger images of the batch caused) are not assigned. None for no such padding.
            progress: of the run; None takes the criterion's last phase.
            weight_sums: scalars by name to divide the losses by, instead of this batch's own: those of all batches
                whose gradients add up to one step.

        Returns:
            Each loss averaged over all processes' batches.
        """


@dataclass(frozen=True)
class CriterionInput:
    """A batch as criteria work on it.

    Attributes:
        predictions: the network's.
        targets: B ground truths in input pixels.
        valid: [B, N] bool, the priors that may be assigned; None where all may.
        progress: of the run; None: its last phase.
        weight_sums: see `Criterion`.
    """

    predictions: DensePredictions
    targets: Sequence[Targets]
    valid: Tensor | None
    progress: Progress | None
    weight_sums: Mapping[str, Tensor] | None

    @cached_property
    def scores(self) -> Tensor:
        """[B, N, C] fp32, probabilities or logits as the predictions say."""
        return self.predictions.scores.float()

    @cached_property
    def boxes(self) -> Tensor:
        """[B, N, 4] fp32, xyxy in input pixels."""
        return self.predictions.boxes.float()

    def divisors(self, own: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """What losses are divided by, by name: the given sums of weights, or the batch's `own`, over processes."""
        return {name: mean_over_processes(value) for name, value in (self.weight_sums or own).items()}


class BatchCriterion(ABC):
    """A criterion that sees whole batches; it never asks which network made the predictions.

    Usable in any training loop::

        losses = TaskAlignedCriterion()(predictions, targets, padded_sizes, Progress(epoch, share=step / steps))
        losses.total.backward()
    """

    terms: ClassVar[tuple[str, ...]]

    def __call__(
        self,
        predictions: DensePredictions,
        targets: Sequence[Targets],
        padded_sizes: Tensor | None = None,
        progress: Progress | None = None,
        weight_sums: Mapping[str, Tensor] | None = None,
    ) -> Losses:
        """Losses of a batch, see `Criterion`.

        Of several processes each sum of weights is that over all of them, at least 1, divided by their number: the mean
        of their gradients then is the gradient of one process with all images. (MMDetection: the mean over the
        processes, at least 1.)
        """
        with without_autocast(predictions.scores.device):
            valid = valid_priors(predictions.priors, padded_sizes)
            return self.losses(CriterionInput(predictions, targets, valid, progress, weight_sums))

    @abstractmethod
    def losses(self, batch: CriterionInput) -> Losses:
        """Losses of a batch, without autocast."""


class CriterionConfig(Protocol):
    """What any criterion's configuration answers for itself.

    Attributes:
        trains_quality: whether a head's judgement of its boxes (`DensePredictions.quality`) learns anything.
    """

    __dataclass_fields__: ClassVar[dict[str, Any]]
    trains_quality: ClassVar[bool]

    @property
    def kind(self) -> str:
        """What configurations call it."""

    def build(self) -> Criterion:
        """The criterion."""


def class_losses(losses: Tensor, counted: Tensor | None, weight: Tensor) -> Tensor:
    """[B, N] the losses [B, N, C] of a prior's classes together, times a scalar, 0 on priors that are not `counted`."""
    per_prior = losses.sum(dim=2)
    return (per_prior if counted is None else per_prior * counted) * weight


def counted_priors(assignment: Assignment, valid: Tensor | None) -> Tensor | None:
    """[B, N] bool: the valid priors that the assignment does not ignore; None where all count."""
    if assignment.ignored is None:
        return valid
    return ~assignment.ignored if valid is None else valid & ~assignment.ignored


def real_images(assignment: Assignment, valid: Tensor | None) -> Tensor:
    """[B] bool: False on a blank, which only fills up the batches of several processes: it has no valid prior."""
    return (torch.ones_like(assignment.positive) if valid is None else valid).any(dim=1)


def positives_of_images(assignment: Assignment, valid: Tensor | None) -> Tensor:
    """[B] int64 number of positives, an image without any counting as one; a blank is no image and counts as none."""
    return assignment.positive.sum(dim=1).maximum(real_images(assignment, valid).long())


def box_losses(boxes: Tensor, assignment: Assignment, weights: Tensor, loss: BoxLoss = giou_loss) -> Tensor:
    """[B, N] the losses of the positives' boxes [B, N, 4] in input pixels, times `weights` [B, N], 0 elsewhere."""
    # Choosing the positive rows would make the host wait for the device: negatives all become one constant pair of
    # equal boxes instead, which has no loss and sends no gradient back.
    positive = assignment.positive[..., None]
    unit = torch.cat([torch.zeros_like(boxes[..., :2]), torch.ones_like(boxes[..., 2:])], dim=-1)
    return loss(torch.where(positive, boxes, unit), torch.where(positive, assignment.boxes, unit)) * weights


def distribution_losses(
    distributions: Tensor, priors: Priors, assignment: Assignment, weights: Tensor, margin: float
) -> Tensor:
    """[B, N] the distribution focal losses of the positives, the mean of four sides, times `weights`, 0 elsewhere.

    Args:
        distributions: [B, N, 4, R] logits of each side's distance in strides, left, top, right, bottom.
        priors: the N places.
        assignment: the ground truths that they answer for.
        weights: [B, N].
        margin: targets end so many bins before the last one; those of places outside their box are 0.
    """
    bins = distributions.shape[-1]
    distances = encode_distances(priors.centres, assignment.boxes) / priors.strides[:, None]  # [B, N, 4]
    positive = assignment.positive[..., None]
    # As in `box_losses`: negatives become constants, so that what they hold sends no gradient back.
    logits = torch.where(positive[..., None], distributions, 0.0)
    targets = torch.where(positive, distances.clamp(0, bins - 1 - margin), 0.0)
    return distribution_focal_loss(logits, targets).mean(dim=-1) * (weights * assignment.positive)


def class_targets(assignment: Assignment, classes: int) -> Tensor:
    """[B, N, C]: the target score on the assigned class, 0 elsewhere."""
    wanted = assignment.target_scores.new_zeros(*assignment.labels.shape, classes)
    return wanted.scatter_(2, assignment.labels.clamp(min=0)[..., None], assignment.target_scores[..., None])


def valid_priors(priors: Priors, padded_sizes: Tensor | None) -> Tensor | None:
    """[B, N] bool: whether a prior's cell lies in its own image's padded area; None where all do.

    A cell is valid where its index is below ceil(padded side / stride).

    Args:
        priors: N places.
        padded_sizes: [B, 2] height, width in input pixels; None for no padding.
    """
    if padded_sizes is None:
        return None
    # Priors sit on the cell's corner or in its middle: floor division finds the cell's index for both.
    cells = torch.div(priors.centres, priors.strides[:, None], rounding_mode="floor")  # [N, 2] column, row
    limits = torch.ceil(padded_sizes.flip(1)[:, None] / priors.strides[:, None])  # [B, N, 2]
    return (cells < limits).all(dim=2)


def without_autocast(device: torch.device) -> AbstractContextManager[Any]:
    """Losses are computed in the precision of their tensors, on every device, also those that have no autocast."""
    if not torch.amp.is_autocast_available(device.type):
        return nullcontext()
    return torch.autocast(device.type, enabled=False)


def mean_over_processes(value: Tensor, least: float = 1.0) -> Tensor:
    """The mean of a scalar over all training processes, their sum taken to be at least `least`, as one would."""
    value, processes = value.detach().float(), 1
    if dist.is_available() and dist.is_initialized():
        value = value.clone()
        dist.all_reduce(value)
        processes = dist.get_world_size()
    return value.clamp(min=least) / processes
