"""The priors of largest t of each ground truth, found in runs of priors that lie side by side on their map.

t = s^alpha * u^beta is above 0 only where the predicted box overlaps the ground truth. Each ground truth is compared
with the rectangle around each run's boxes, and measured against the boxes of the runs that it touches.
"""

from __future__ import annotations

import torch
from torch import Tensor

from tood.alignment.assigners.assignment import Candidates, first_largest
from tood.alignment.assigners.touching import Search, nowhere, touching
from tood.boxes import overlap_matrix

# Priors of a run: more of them leave fewer rectangles to compare with, fewer of them lie closer together.
RUN = 8
# Pairs of a ground truth and a box that are measured at once: half a MiB each temporary, which caches hold.
PAIRS = 1 << 17


def best_in_runs(search: Search, found: Candidates) -> None:
    """Fills in the `topk` priors of largest t of each ground truth, of equal ones the first.

    Where fewer have a t above 0, the rest stays at a t of 0; `found` [G, topk] comes with nothing in it.
    Memory: O(G * topk + N), plus some 10 MiB, or 25 where hundreds of objects are as large as the image.
    """
    width = min(RUN, len(search.boxes))
    starts, sides = _runs(search.sides(), width)
    around = torch.cat([sides[:2, :-1].amin(dim=2), sides[2:, :-1].amax(dim=2)])  # [4, R]
    score_runs = search.scores.T.unfold(1, width, 1)  # [C, N - width + 1, width], a view
    centre_runs = None if search.centres is None else search.centres.unfold(0, width, 1)  # [N - width + 1, 2, width]
    for members, near in touching(search.gt_boxes, around, around.shape[1], PAIRS // width):
        gt, start = search.gt_boxes[members, None], starts[near]  # [m, 1, 4], [m, n]
        # A side after the other, from whole rows: many times as fast as one gather of everything.
        boxes = sides.new_empty(4, near.numel(), width)
        for side, selected in zip(sides, boxes, strict=True):
            torch.index_select(side, 0, near.flatten(), out=selected)
        u = overlap_matrix(search.overlap, gt, boxes.view(4, len(members), -1).movedim(0, -1))[:, 0]  # [m, n * width]
        s = score_runs[search.gt_labels[members, None], start].flatten(1)
        # [m, n * width, 2]
        points = None if centre_runs is None else centre_runs[start].transpose(2, 3).flatten(1, 2)
        t = search.metric(s, u, gt, points)
        values, place = first_largest(t[:, None], min(search.topk, t.shape[1]))
        values, place = values[:, 0], place[:, 0]
        k = values.shape[1]
        found.index[members, :k] = start.gather(1, place // width) + place % width
        found.metric[members, :k] = values
        found.iou[members, :k] = u.gather(1, place)


def _runs(planes: Tensor, width: int) -> tuple[Tensor, Tensor]:
    """[R + 1] first priors of runs of `width`, [4, R + 1, width] the sides of their boxes, of the [4, N] of all.

    The last but one may begin inside its predecessor: what it repeats is empty there. The last is all empty.
    """
    priors = planes.shape[1]
    count = -(-priors // width)
    starts = torch.arange(count + 1) * width
    starts[count - 1], starts[count] = priors - width, 0
    sides = nowhere(planes)[..., None].repeat(1, count + 1, width)
    sides[:, : count - 1] = planes[:, : (count - 1) * width].view(4, -1, width)
    rest = priors - (count - 1) * width
    sides[:, count - 1, width - rest :] = planes[:, priors - rest :]
    return starts, sides
