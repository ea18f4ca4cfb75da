"""The priors of largest t of each ground truth, found among the predicted boxes that touch it.

t = s^alpha * u^beta is above 0 only where the predicted box overlaps the ground truth. Ground truths are taken in
groups that lie close to each other, and each group is measured against the boxes that touch the rectangle around it.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from tood.alignment.assigners.assignment import first_largest
from tood.alignment.metric import alignment_metric
from tood.boxes import EPSILON, inside_distance, iou_matrix

# Ground truths of a group: more of them share the search for boxes, fewer of them lie closer together.
GROUP = 16
# Pairs of a ground truth and a box that are measured at once: 1 MiB each temporary, which caches hold.
PAIRS = 1 << 18
# Pairs of a group and a box that are compared at once: 1 MiB of truth values.
COMPARISONS = 1 << 20


def best_overlapping(
    scores: Tensor,
    boxes: Tensor,
    centres: Tensor | None,
    gt_boxes: Tensor,
    gt_labels: Tensor,
    valid: Tensor | None,
    topk: int,
    alpha: float,
    beta: float,
    margin: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """The `topk` priors of largest t of each ground truth of one image, of equal ones the first.

    Args:
        scores: [N, C] predicted probabilities; boxes: [N, 4] predicted, in input pixels.
        centres: [N, 2] of the priors, where only those inside a ground truth by more than `margin` are to be ranked;
            None ranks all.
        gt_boxes: [G, 4] in input pixels; gt_labels: [G].
        valid: [N] bool, False on priors that may not be assigned; None for all valid.
        topk, alpha, beta, margin: as in `TaskAlignedAssigner`.

    Returns:
        [G, topk] each: indices of the priors, their IoU, their t; where fewer have a t above 0, the rest is 0. Memory:
        O(G * topk + N), plus a few MiB.
    """
    truths, priors = len(gt_boxes), len(boxes)
    index = torch.zeros(truths, topk, dtype=torch.long)
    metric, iou = torch.zeros(truths, topk), torch.zeros(truths, topk)
    order = _morton_order(gt_boxes)
    places = torch.arange(-(-truths // GROUP) * GROUP).clamp(max=truths - 1).view(-1, GROUP)
    groups = order[places]  # [M, g], the last one filled up with its last member
    # The last is beyond every other and of no area: what groups with fewer boxes are filled up with.
    padded = torch.cat([boxes, boxes.new_full((1, 4), -1e9)])  # [N + 1, 4]
    flat = scores.reshape(-1)
    for members, touching in _touching(groups, gt_boxes, boxes, centres, valid):
        gt = gt_boxes[members]  # [m, g, 4]
        u = iou_matrix(gt, padded[touching])  # [m, g, n]
        prior = touching.clamp(max=priors - 1)
        s = flat[(prior * scores.shape[1])[:, None] + gt_labels[members][..., None]]
        t = alignment_metric(s, u, alpha, beta)
        if centres is not None:
            inside = inside_distance(centres[prior][:, None], gt[:, :, None]) > margin
            t = t.masked_fill(~inside, 0)
        values, place = first_largest(t, min(topk, t.shape[2]))
        k = values.shape[2]
        index[members, :k] = prior[:, None].expand(-1, GROUP, -1).gather(2, place)
        metric[members, :k] = values
        iou[members, :k] = u.gather(2, place)
    return index, iou, metric


def _morton_order(gt_boxes: Tensor) -> Tensor:
    """[G] the ground truths along a Z-shaped curve through their centres: neighbours in it lie close together."""
    middle = gt_boxes[:, :2] + gt_boxes[:, 2:]
    low = middle.amin(dim=0)
    cell = ((middle - low) / (middle.amax(dim=0) - low).amax().clamp(min=EPSILON) * 1023).long()
    for shift, mask in ((8, 0x00FF00FF), (4, 0x0F0F0F0F), (2, 0x33333333), (1, 0x55555555)):
        cell = (cell | (cell << shift)) & mask
    return (cell[:, 0] | (cell[:, 1] << 1)).argsort()


def _touching(
    groups: Tensor, gt_boxes: Tensor, boxes: Tensor, centres: Tensor | None, valid: Tensor | None
) -> Iterator[tuple[Tensor, Tensor]]:
    """Groups [m, g] with the boxes [m, n] that touch any of each, in rising order, filled up with N."""
    priors = len(boxes)
    members = gt_boxes[groups]
    low, high = members[..., :2].amin(dim=1), members[..., 2:].amax(dim=1)  # [M, 2]
    x1, y1, x2, y2 = boxes.T.contiguous()
    for start in range(0, len(groups), max(1, COMPARISONS // priors)):
        chunk = slice(start, start + max(1, COMPARISONS // priors))
        left, top = low[chunk, :1], low[chunk, 1:]
        right, bottom = high[chunk, :1], high[chunk, 1:]
        touches = (x1 < right).logical_and_(x2 > left).logical_and_(y1 < bottom).logical_and_(y2 > top)  # [M, N]
        if centres is not None:
            x, y = centres.unbind(dim=1)
            touches &= (x > left) & (x < right) & (y > top) & (y < bottom)
        if valid is not None:
            touches &= valid
        counts = touches.sum(dim=1)
        box = touches.nonzero(as_tuple=True)[1]
        begin = counts.cumsum(dim=0) - counts
        # Groups with about as many boxes go together: little is filled up.
        rank = counts.argsort(descending=True)
        sizes = counts[rank].tolist()
        first = 0
        while first < len(sizes) and sizes[first]:
            stop = first + max(1, PAIRS // (GROUP * sizes[first]))
            part = rank[first:stop]
            column = torch.arange(sizes[first])
            filled = column < counts[part][:, None]
            source = (begin[part][:, None] + column).clamp_(max=len(box) - 1)
            yield groups[chunk][part], torch.where(filled, box[source], priors)
            first = stop
