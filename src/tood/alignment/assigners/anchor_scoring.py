"""Probabilistic anchor assignment (PAA, Kim and Lee 2020): anchors that the network itself finds easy are positives."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import torch
from torch import Tensor

from tood.alignment.assigners.assignment import Assignment
from tood.alignment.assigners.max_iou import MaxIoUAssigner
from tood.alignment.assigners.mixture import MixtureFit, log_densities_of_two
from tood.structures import Priors, Targets


@dataclass(frozen=True)
class AnchorScoringAssigner:
    """Fits a mixture of two normal distributions to the losses that each ground truth's anchors would have; those of
    the lower component up to its densest point are positives.

    Attributes:
        candidates: gives the anchors that are scored.
        topk: of these the ones of smallest loss for each ground truth and level; the others are negatives.
        mixture: how it is fitted.
        beyond_peak: what becomes of the lower component's anchors beyond that point: negatives, as in the published
            networks (figure 3c of the paper), or priors that learn nothing.
    """

    candidates: MaxIoUAssigner = field(default_factory=MaxIoUAssigner)
    topk: int = 9
    mixture: MixtureFit = field(default_factory=MixtureFit)
    beyond_peak: Literal["negative", "ignored"] = "negative"

    @torch.no_grad()
    def __call__(
        self,
        priors: Priors,
        targets: Sequence[Targets],
        losses: Callable[[Assignment], Tensor],
        valid: Tensor | None = None,
    ) -> Assignment:
        """Assigns a batch by the network's own losses.

        Args:
            priors: the N places with their square anchors, in input pixels.
            targets: B ground truths in input pixels; crowds take no part.
            losses: gives [B, N] what each positive of an assignment would cost.
            valid: [B, N] bool, False on priors that may not be assigned (padding); None for all valid.

        Returns:
            The assignment, `metric` being the anchors' IoU and `target_scores` 1 on positives. A ground truth with a
            single candidate has no positive: two components need two. Of equal losses the anchor that comes first is
            taken first. Extra memory: O(B * (G * levels * topk + N)), and that of the candidates.
        """
        found = self.candidates(priors, targets, valid)
        truths = max(map(len, targets), default=0)
        if truths == 0:
            return found
        index, cost = _easiest(found.gt_index, losses(found).float(), priors.level_sizes, truths, self.topk)
        positive, uncertain = _split(cost, self.mixture)
        keep = _marked(index, positive, found.gt_index)
        ignored = _marked(index, uncertain, found.gt_index) if self.beyond_peak == "ignored" else None
        return replace(
            found,
            gt_index=torch.where(keep, found.gt_index, -1),
            labels=torch.where(keep, found.labels, -1),
            boxes=found.boxes * keep[..., None],
            iou=found.iou * keep,
            metric=found.metric * keep,
            target_scores=found.target_scores * keep,
            ignored=ignored,
        )


def _easiest(
    gt_index: Tensor, losses: Tensor, level_sizes: Sequence[int], truths: int, topk: int
) -> tuple[Tensor, Tensor]:
    """The `topk` priors of smallest loss of each ground truth and level, all levels together in rising order of loss.

    Args:
        gt_index: [B, N] int64, -1 on priors that are no candidates.
        losses: [B, N].
        level_sizes: priors of each level.
        truths: G, more than any index.
        topk: of a level.

    Returns:
        [B, G, levels * topk] indices of priors, N where there are no more, and their losses, infinite there.
    """
    batch, priors = losses.shape
    levels = len(level_sizes)
    level = torch.cat([gt_index.new_full((size,), number) for number, size in enumerate(level_sizes)])
    group = torch.where(gt_index >= 0, gt_index * levels + level, truths * levels)  # [B, N]
    order = losses.argsort(dim=1, stable=True)
    order = order.gather(1, group.gather(1, order).argsort(dim=1, stable=True))  # group by group, by loss
    group = group.gather(1, order)
    sizes = group.new_zeros(batch, truths * levels + 1).scatter_add_(1, group, torch.ones_like(group))
    first = sizes.cumsum(dim=1) - sizes
    rank = torch.arange(priors, device=group.device) - first.gather(1, group)
    # What finds no place goes to one behind all others.
    wanted = (rank < topk) & (group < truths * levels)
    place = torch.where(wanted, group * topk + rank, truths * levels * topk)
    count = truths * levels * topk + 1
    index = place.new_full((batch, count), priors).scatter_(1, place, order)[:, :-1]
    cost = losses.new_full((batch, count), math.inf).scatter_(1, place, losses.gather(1, order))[:, :-1]
    cost, by_cost = cost.view(batch, truths, -1).sort(dim=2, stable=True)
    return index.view(batch, truths, -1).gather(2, by_cost), cost


def _split(losses: Tensor, fit: MixtureFit) -> tuple[Tensor, Tensor]:
    """Which of the losses [B, G, K], in rising order, infinite for none, are positives', and which are uncertain."""
    present = losses < math.inf
    low, high = (
        log_densities_of_two(losses.flatten(0, 1), present.flatten(0, 1), fit)
        .view(*losses.shape[:2], 2, -1)
        .unbind(dim=2)
    )
    lower = present & (low >= high) & (present.sum(dim=2, keepdim=True) > 1)
    peak = torch.where(lower, torch.logaddexp(low, high), -math.inf).argmax(dim=2, keepdim=True)
    before = torch.arange(losses.shape[2], device=losses.device) <= peak
    return lower & before, lower & ~before


def _marked(index: Tensor, chosen: Tensor, like: Tensor) -> Tensor:
    """[B, N] bool: the priors whose indices [B, G, K] are chosen."""
    batch, priors = like.shape
    place = torch.where(chosen, index, priors).flatten(1)
    marks = torch.zeros(batch, priors + 1, dtype=torch.bool, device=like.device)
    return marks.scatter_(1, place, True)[:, :priors]
