"""Assignment by the anchors' IoU alone (Faster R-CNN, Ren et al. 2015): PAA's candidates."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from tood.alignment.assigners.assignment import Assignment, PaddedTargets, block_size, empty_assignment
from tood.boxes import iou_matrix
from tood.structures import Priors, Targets


@dataclass(frozen=True)
class MaxIoUAssigner:
    """Gives each anchor to the ground truth that it overlaps most, if by enough; and to each ground truth its best
    anchors, whatever their IoU and whoever else overlaps them more.

    Attributes:
        positive_iou: least IoU of an anchor with its ground truth.
    """

    positive_iou: float = 0.1

    @torch.no_grad()
    def __call__(self, priors: Priors, targets: Sequence[Targets], valid: Tensor | None = None) -> Assignment:
        """Assigns a batch by geometry alone.

        Args:
            priors: the N places with their square anchors, in input pixels.
            targets: B ground truths in input pixels; crowds take no part.
            valid: [B, N] bool, False on priors that may not be assigned (padding); None for all valid.

        Returns:
            The assignment, `metric` being the IoU and `target_scores` 1 on positives. Of ground truths that overlap an
            anchor equally the first has it; of those whose best anchor it is, the last. A ground truth that overlaps
            no anchor has none. Extra memory: O(B * (G + N)), plus blocks of 16 MiB; time O(B * G * N).
        """
        truth = PaddedTargets.of(targets)
        anchors = priors.boxes
        batch, truths = truth.labels.shape
        if truths == 0:
            return empty_assignment(batch, len(anchors), anchors.device)
        overlap = anchors.new_full((batch, len(anchors)), -1.0)
        closest = torch.full_like(overlap, -1, dtype=torch.long)
        claimed = torch.full_like(closest, -1)
        size = block_size(batch, len(anchors), anchors.device)
        number = torch.arange(truths, device=anchors.device)[:, None]
        for start in range(0, truths, size):
            block = slice(start, start + size)
            iou = iou_matrix(truth.boxes[:, block], anchors)  # [B, g, N]
            iou.masked_fill_(~truth.present[:, block, None], -1.0)
            if valid is not None:
                iou.masked_fill_(~valid[:, None], -1.0)
            value, which = iou.max(dim=1)  # [B, N]
            closest = torch.where(value > overlap, which + start, closest)
            overlap = torch.maximum(overlap, value)
            best = iou.amax(dim=2, keepdim=True)
            claims = torch.where((iou == best) & (best > 0), number[block], -1)
            claimed = torch.maximum(claimed, claims.amax(dim=1))
        gt_index = torch.where(overlap >= self.positive_iou, closest, -1)
        return Assignment.of_owners(torch.where(claimed >= 0, claimed, gt_index), truth, anchors)
