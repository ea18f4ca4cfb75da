"""What the searches for overlapping boxes have in common: the question, and which rectangles touch which."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tood.alignment.metric import alignment_metric
from tood.boxes import Overlap, inside_distance

# Pairs of rectangles that are compared at once: 1 MiB of truth values.
COMPARISONS = 1 << 20


@dataclass(frozen=True)
class Search:
    """The priors of largest t of each ground truth of one image are sought.

    Attributes:
        scores: [N, C] predicted probabilities; boxes: [N, 4] predicted, in input pixels.
        centres: [N, 2] of the priors, where only those inside a ground truth by more than `margin` are to be ranked;
            None ranks all.
        gt_boxes: [G, 4] in input pixels; gt_labels: [G].
        valid: [N] bool, False on priors that may not be assigned; None for all valid.
        topk, alpha, beta, margin, overlap: as in `TaskAlignedAssigner`.
    """

    scores: Tensor
    boxes: Tensor
    centres: Tensor | None
    gt_boxes: Tensor
    gt_labels: Tensor
    valid: Tensor | None
    topk: int
    alpha: float
    beta: float
    margin: float
    overlap: Overlap

    def sides(self) -> Tensor:
        """[4, N] x1, y1, x2, y2 of the boxes; those that overlap nothing or may not be assigned touch nothing."""
        planes = self.boxes.T.contiguous()
        x1, y1, x2, y2 = planes
        empty = ~((x2 > x1) & (y2 > y1))  # NaN, too
        if self.valid is not None:
            empty |= ~self.valid
        return torch.where(empty, nowhere(planes), planes)

    def metric(self, score: Tensor, iou: Tensor, gt_boxes: Tensor, points: Tensor | None) -> Tensor:
        """t of pairs, 0 where the prior's centre `points` [..., 2], if given, is not inside the ground truth."""
        t = alignment_metric(score, iou, self.alpha, self.beta)
        return t if points is None else t.masked_fill(inside_distance(points, gt_boxes) <= self.margin, 0)


def nowhere(like: Tensor) -> Tensor:
    """[4, 1] the sides of a box that touches nothing."""
    return like.new_tensor([torch.inf, torch.inf, -torch.inf, -torch.inf])[:, None]


def touching(rectangles: Tensor, sides: Tensor, filler: int, pairs: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Which of N rectangles touch each of M, for some of the M at a time.

    Args:
        rectangles: [M, 4] x1 y1 x2 y2; sides: [4, N] of the others.
        filler: what rows with fewer are filled up with.
        pairs: so many numbers at most are given at once, or one row.

    Yields:
        [m] of the M, those that touch any; [m, n] what touches them, in rising order, then `filler`.
    """
    low, high, of = sides[:2].numpy(), sides[2:].numpy(), rectangles.numpy()
    step = max(1, COMPARISONS // low.shape[1])
    for start in range(0, len(of), step):
        left, top, right, bottom = of[start : start + step].T[..., None]
        touches = low[0] < right
        touches &= high[0] > left
        touches &= low[1] < bottom
        touches &= high[1] > top
        for rows, columns in _packed(touches, filler, pairs):
            yield torch.from_numpy(rows + start), torch.from_numpy(columns)


def _packed(
    chosen: NDArray[np.bool_], filler: int, pairs: int
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """The columns chosen in each row of [M, N], as above."""
    counts = np.count_nonzero(chosen, axis=1)
    column = np.flatnonzero(chosen) - (np.arange(len(counts)) * chosen.shape[1]).repeat(counts)
    begin = counts.cumsum() - counts
    # Rows with about as many go together: little is filled up.
    rank = (-counts).argsort(kind="stable")
    sizes = counts[rank].tolist()
    first = 0
    while first < len(sizes) and sizes[first]:
        part = rank[first : first + max(1, pairs // sizes[first])]
        place = np.arange(sizes[first])
        source = np.minimum(begin[part][:, None] + place, len(column) - 1)
        yield part, np.where(place < counts[part][:, None], column[source], filler)
        first += len(part)
