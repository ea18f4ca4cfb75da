"""The priors of largest t of each ground truth, found among the predicted boxes that touch it.

t = s^alpha * u^beta is above 0 only where the predicted box overlaps the ground truth. Priors are taken in runs of
neighbours, which lie side by side on their map: each ground truth is compared with the rectangle around each run's
boxes, and measured against the boxes of the runs that it touches.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from tood.alignment.assigners.assignment import first_largest
from tood.alignment.metric import alignment_metric
from tood.boxes import inside_distance, iou_matrix

# Priors of a run: more of them leave fewer rectangles to compare with, fewer of them lie closer together.
RUN = 8
# Pairs of a ground truth and a box that are measured at once: half a MiB each temporary, which caches hold.
PAIRS = 1 << 17
# Pairs of a ground truth and a run that are compared at once: 1 MiB of truth values.
COMPARISONS = 1 << 20


def best_in_runs(
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
    """What `best_overlapping` gives: the `topk` priors of largest t of each ground truth, of equal ones the first.

    Args:
        scores: [N, C] predicted probabilities; boxes: [N, 4] predicted, in input pixels.
        centres: [N, 2] of the priors, where only those inside a ground truth by more than `margin` are to be ranked;
            None ranks all.
        gt_boxes: [G, 4] in input pixels; gt_labels: [G].
        valid: [N] bool, False on priors that may not be assigned; None for all valid.
        topk, alpha, beta, margin: as in `TaskAlignedAssigner`.

    Returns:
        [G, topk] each: indices of the priors, their IoU, their t; where fewer have a t above 0, the rest has a t of 0.
        Memory: O(G * topk + N), plus some 10 MiB, or 25 where hundreds of objects are as large as the image.
    """
    truths, priors = len(gt_boxes), len(boxes)
    index = torch.zeros(truths, topk, dtype=torch.long)
    metric, iou = torch.zeros(truths, topk), torch.zeros(truths, topk)
    width = min(RUN, priors)
    starts, sides = _runs(boxes, valid, width)
    score_runs = scores.T.unfold(1, width, 1)  # [C, N - width + 1, width], a view
    centre_runs = None if centres is None else centres.unfold(0, width, 1)  # [N - width + 1, 2, width]
    for members, touching in _touching(gt_boxes, sides):
        gt, start = gt_boxes[members, None], starts[touching]  # [m, 1, 4], [m, n]
        # A side after the other, from whole rows: many times as fast as one gather of everything.
        near = sides.new_empty(4, touching.numel(), width)
        for side, selected in zip(sides, near, strict=True):
            torch.index_select(side, 0, touching.flatten(), out=selected)
        u = iou_matrix(gt, near.view(4, len(members), -1).movedim(0, -1))[:, 0]  # [m, n * width]
        s = score_runs[gt_labels[members, None], start].flatten(1)
        t = alignment_metric(s, u, alpha, beta)
        if centre_runs is not None:
            points = centre_runs[start].transpose(2, 3).flatten(1, 2)  # [m, n * width, 2]
            t = t.masked_fill(inside_distance(points, gt) <= margin, 0)
        values, place = first_largest(t[:, None], min(topk, t.shape[1]))
        values, place = values[:, 0], place[:, 0]
        k = values.shape[1]
        index[members, :k] = start.gather(1, place // width) + place % width
        metric[members, :k] = values
        iou[members, :k] = u.gather(1, place)
    return index, iou, metric


def _runs(boxes: Tensor, valid: Tensor | None, width: int) -> tuple[Tensor, Tensor]:
    """[R + 1] first priors of runs of `width`, [4, R + 1, width] the sides of their boxes.

    The last but one may begin inside its predecessor: what it repeats is empty there. The last is all empty. So are the
    boxes that overlap nothing or may not be assigned.
    """
    priors = len(boxes)
    count = -(-priors // width)
    starts = torch.arange(count + 1) * width
    starts[count - 1], starts[count] = priors - width, 0
    x1, y1, x2, y2 = planes = boxes.T.contiguous()
    empty = ~((x2 > x1) & (y2 > y1))  # NaN, too
    if valid is not None:
        empty |= ~valid
    nowhere = boxes.new_tensor([torch.inf, torch.inf, -torch.inf, -torch.inf])[:, None]
    planes = torch.where(empty, nowhere, planes)
    sides = nowhere[..., None].repeat(1, count + 1, width)
    sides[:, : count - 1] = planes[:, : (count - 1) * width].view(4, -1, width)
    rest = priors - (count - 1) * width
    sides[:, count - 1, width - rest :] = planes[:, priors - rest :]
    return starts, sides


def _touching(gt_boxes: Tensor, sides: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Ground truths [m] with the runs [m, n] that touch each, in rising order, filled up with the last, empty one."""
    last = sides.shape[1] - 1
    low, high = sides[:2, :last].amin(dim=2).numpy(), sides[2:, :last].amax(dim=2).numpy()
    step = max(1, COMPARISONS // last)
    gts = gt_boxes.numpy()
    for start in range(0, len(gt_boxes), step):
        left, top, right, bottom = gts[start : start + step].T[..., None]
        touches = low[0] < right
        touches &= high[0] > left
        touches &= low[1] < bottom
        touches &= high[1] > top
        counts = np.count_nonzero(touches, axis=1)
        run = np.flatnonzero(touches) - (np.arange(len(counts)) * last).repeat(counts)
        begin = counts.cumsum() - counts
        # Ground truths with about as many runs go together: little is filled up.
        rank = (-counts).argsort(kind="stable")
        sizes = counts[rank].tolist()
        first = 0
        while first < len(sizes) and sizes[first]:
            stop = first + max(1, PAIRS // (sides.shape[2] * sizes[first]))
            part = rank[first:stop]
            column = np.arange(sizes[first])
            source = np.minimum(begin[part][:, None] + column, len(run) - 1)
            filled = column < counts[part][:, None]
            yield torch.from_numpy(part + start), torch.from_numpy(np.where(filled, run[source], last))
            first = stop
