"""SimOTA (YOLOX, Ge et al. 2021, section 2.1): positives are the cheapest priors, as many as the overlaps say."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from tood.alignment.assigners.assignment import (
    Assignment,
    PaddedTargets,
    block_size,
    empty_assignment,
    first_largest,
)
from tood.boxes import inside_distance, iou_matrix
from tood.structures import Targets

# A prior outside of a ground truth or far from its centre costs so much more, and is taken only if no other is left.
OUTSIDE = 1e5
# The least logarithm of a probability, as in PyTorch's binary cross entropy.
LEAST_LOG = -100.0


@dataclass(frozen=True)
class SimOTAAssigner:
    """Assigns to each ground truth its k priors of least cost, k being the sum of its largest overlaps.

    A prior may answer for a ground truth if its place lies in any ground truth's box or near any one's centre. Its cost
    is the binary cross entropy of all its class scores with the ground truth's class, and the negative logarithm of its
    box's IoU with it.

    Usable in any training loop::

        assignment = SimOTAAssigner()(scores, boxes, centres, strides, targets)
        positives = assignment.positive            # [B, N]

    Attributes:
        candidates: k is the sum of so many of the largest IoUs, rounded down, and at least 1.
        radius: a place is near a centre where it is less than this away from it along both axes, in its strides.
        class_weight, iou_weight: factors of both parts of the cost.
        epsilon: what is added to the IoU before the logarithm.
    """

    candidates: int = 10
    radius: float = 2.5
    class_weight: float = 1.0
    iou_weight: float = 3.0
    epsilon: float = 1e-7

    @torch.no_grad()
    def __call__(
        self,
        scores: Tensor,
        boxes: Tensor,
        centres: Tensor,
        strides: Tensor,
        targets: Sequence[Targets],
        valid: Tensor | None = None,
    ) -> Assignment:
        """Assigns a batch.

        Args:
            scores: [B, N, C] probabilities; YOLOX gives the root of class score times objectness.
            boxes: [B, N, 4] predicted boxes, x1 y1 x2 y2 in input pixels, no NaN among them.
            centres: [N, 2] the middles of the priors' cells, x, y in input pixels.
            strides: [N] sides of these cells.
            targets: B ground truths in input pixels; crowds take no part.
            valid: [B, N] bool, False on priors that may not be assigned (padding); None for all valid.

        Returns:
            The assignment, `metric` and `target_scores` being the IoU of the positives' boxes. Of priors of equal cost
            the first are taken (on a GPU any). A prior that several ground truths claim goes to the one that it costs
            least, among all of its image, among equals to the first. Extra memory: O(B * N * C) for the logarithms of
            the scores, O(B * (N + G * candidates)), and blocks of 8 MiB (on a GPU 64), about ten at a time.
        """
        truth = PaddedTargets.of(targets)
        batch, priors, _ = scores.shape
        if truth.boxes.shape[1] == 0 or priors == 0:
            return empty_assignment(batch, priors, scores.device)
        boxes = boxes.float()
        eligible = self._eligible(centres, strides, truth, priors)
        if valid is not None:
            eligible &= valid
        # The first and the last ground truth that claims a prior; behind the priors is where nothing is claimed.
        first = torch.full((batch, priors + 1), truth.boxes.shape[1], device=scores.device)
        last = torch.full_like(first, -1)
        least = torch.full((batch, priors), torch.inf, device=scores.device)
        cheapest = torch.zeros_like(least, dtype=torch.long)
        for part, cost, iou in self._costs(scores.float(), boxes, centres, strides, truth):
            possible = eligible[:, None] & truth.present[:, part, None]  # [B, g, N]
            cost = cost.masked_fill(~possible, torch.inf)
            taken = self._taken(cost, iou.masked_fill(~possible, 0))  # [B, g, K]
            number = torch.arange(part.start, part.stop, device=scores.device)[:, None].expand_as(taken).flatten(1)
            first.scatter_reduce_(1, taken.flatten(1), number, "amin")
            last.scatter_reduce_(1, taken.flatten(1), number, "amax")
            own, own_number = cost.min(dim=1)  # [B, N]
            cheaper = own < least
            least = torch.where(cheaper, own, least)
            cheapest = torch.where(cheaper, own_number + part.start, cheapest)
        first, last = first[:, :priors], last[:, :priors]
        found = Assignment.of_owners(torch.where(first < last, cheapest, last), truth, boxes)
        return replace(found, target_scores=found.iou)

    def _eligible(self, centres: Tensor, strides: Tensor, truth: PaddedTargets, priors: int) -> Tensor:
        """[B, N] bool: whether a place lies in any ground truth of its image, or near any one's centre."""
        batch = len(truth.boxes)
        eligible = torch.zeros(batch, priors, dtype=torch.bool, device=centres.device)
        for part in _blocks(truth, priors):
            inside, near = self._places(centres, strides, truth.boxes[:, part])
            eligible |= ((inside | near) & truth.present[:, part, None]).any(dim=1)
        return eligible

    def _places(self, centres: Tensor, strides: Tensor, gt_boxes: Tensor) -> tuple[Tensor, Tensor]:
        """[B, g, N] bool each: whether a place lies in the ground truths [B, g, 4], and whether near their centres."""
        inside = inside_distance(centres, gt_boxes[:, :, None]) > 0
        x, y = ((gt_boxes[..., :2] + gt_boxes[..., 2:]) / 2).unbind(dim=-1)  # [B, g] each
        reach = self.radius * strides  # [N]
        near = (centres[:, 0] - x[..., None]).abs() < reach
        return inside, near & ((centres[:, 1] - y[..., None]).abs() < reach)

    def _costs(
        self, scores: Tensor, boxes: Tensor, centres: Tensor, strides: Tensor, truth: PaddedTargets
    ) -> Iterator[tuple[slice, Tensor, Tensor]]:
        """Blocks of ground truths, and the costs and IoUs [B, g, N] of all priors for them."""
        yes, no = scores.log().clamp(min=LEAST_LOG), (-scores).log1p().clamp(min=LEAST_LOG)  # [B, N, C]
        of_none = -no.sum(dim=2)[:, None]  # [B, 1, N]: the cross entropy if there were no object
        change = (no - yes).transpose(1, 2)  # [B, C, N]: what a class's being the object's adds to it
        image = torch.arange(len(scores), device=scores.device)[:, None]
        for part in _blocks(truth, scores.shape[1]):
            gt_boxes = truth.boxes[:, part]
            iou = iou_matrix(gt_boxes, boxes)
            cost = (of_none + change[image, truth.labels[:, part]]) * self.class_weight
            cost = cost - (iou + self.epsilon).log() * self.iou_weight
            inside, near = self._places(centres, strides, gt_boxes)
            yield part, cost + OUTSIDE * ~(inside & near), iou

    def _taken(self, cost: Tensor, iou: Tensor) -> Tensor:
        """[B, g, K] the priors that each ground truth takes, N where it takes fewer: costs and IoUs are [B, g, N]."""
        count = min(self.candidates, cost.shape[2])
        wanted = iou.topk(count, dim=2).values.sum(dim=2, keepdim=True).long().clamp(min=1)  # [B, g, 1]
        negative, index = first_largest(-cost, count, above=-torch.inf)
        rank = torch.arange(count, device=cost.device)
        return torch.where((rank < wanted) & (negative > -torch.inf), index, cost.shape[2])


def _blocks(truth: PaddedTargets, priors: int) -> Iterator[slice]:
    """The ground truths of each image in blocks of so many (image, ground truth, prior) triples as fit in memory."""
    batch, count = truth.present.shape
    size = block_size(batch, priors, truth.boxes.device)
    for start in range(0, count, size):
        yield slice(start, min(start + size, count))
