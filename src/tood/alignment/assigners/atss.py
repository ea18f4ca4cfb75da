"""Adaptive training sample selection (ATSS, Zhang et al. 2020, algorithm 1): TOOD's assignment in its first epochs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from tood.alignment.assigners.assignment import (
    Assignment,
    Candidates,
    PaddedTargets,
    build_assignment,
    empty_assignment,
    settle_conflicts,
)
from tood.alignment.assigners.contested import Rivals, settle_among
from tood.alignment.assigners.nearest import nearest
from tood.boxes import inside_distance, iou_pairs
from tood.structures import Priors, Targets


@dataclass(frozen=True)
class ATSSAssigner:
    """Takes, for each ground truth, the `topk` anchors nearest to its centre on every level; those whose IoU reaches
    the mean plus the standard deviation of all candidates' IoU and whose centre is inside the box are positives.

    Attributes:
        topk: candidates for each ground truth and level.
        margin: an anchor is inside where its centre is farther than this from every side, in input pixels.
        above: whether the IoU must exceed the threshold, instead of reaching it.
        rivals: which ground truths an anchor that several have chosen may go to (see `Rivals`).
    """

    topk: int = 9
    margin: float = 0.01
    above: bool = False
    rivals: Rivals = "chosen"

    @torch.no_grad()
    def __call__(self, priors: Priors, targets: Sequence[Targets], valid: Tensor | None = None) -> Assignment:
        """Assigns a batch by geometry alone.

        Args:
            priors: the N places with their square anchors, in input pixels.
            targets: B ground truths in input pixels; crowds take no part.
            valid: [B, N] bool, False on priors that may not be assigned (padding); None for all valid.

        Returns:
            The assignment, `metric` being the IoU and `target_scores` 1 on positives. Of equally near anchors
            those are taken that `torch.topk` takes; conflicts as in TAL.
            Extra memory: O(B * G * levels * topk + B * N), plus blocks of 8 MiB (on a GPU 64).
        """
        truth = PaddedTargets.of(targets)
        count = len(priors.centres)
        if truth.boxes.shape[1] == 0:
            return empty_assignment(len(targets), count, priors.centres.device)
        index, near = self._nearest(priors, truth, valid)  # [B, G, K]
        iou = iou_pairs(priors.boxes[index], truth.boxes[:, :, None])
        number = near.sum(dim=2, keepdim=True)
        mean = torch.where(near, iou, 0).sum(dim=2, keepdim=True) / number.clamp(min=1)
        variance = torch.where(near, iou - mean, 0).square().sum(dim=2, keepdim=True) / (number - 1).clamp(min=1)
        inside = inside_distance(priors.centres[index], truth.boxes[:, :, None]) > self.margin
        threshold = mean + variance.sqrt()
        enough = iou > threshold if self.above else iou >= threshold
        candidates = Candidates(index, iou, iou, near & enough & inside & truth.present[..., None])
        if self.rivals != "chosen":
            owner = settle_among(self.rivals, candidates, truth, priors.boxes, priors.centres, self.margin)
            return Assignment.of_owners(owner, truth, priors.boxes)
        gt_index, won = settle_conflicts(candidates, count)
        return build_assignment(truth, gt_index, won, candidates, torch.ones_like(iou))

    def _nearest(self, priors: Priors, truth: PaddedTargets, valid: Tensor | None) -> tuple[Tensor, Tensor]:
        """[B, G, K] index of each ground truth's nearest anchors, level by level, and whether each is a valid one."""
        centres = (truth.boxes[..., :2] + truth.boxes[..., 2:]) / 2  # [B, G, 2]
        distances, indices = [], []
        start = 0
        for shape, size in zip(priors.shapes, priors.level_sizes, strict=True):
            level = slice(start, start + size)
            distance, index = nearest(
                priors.centres[level],
                shape,
                centres,
                None if valid is None else valid[:, level],
                min(self.topk, size),
            )
            distances.append(distance)
            indices.append(index + start)
            start += size
        return torch.cat(indices, dim=2), torch.cat(distances, dim=2) < torch.inf
