"""The priors of largest t of each of very many ground truths, found in groups that lie close to each other.

t = s^alpha * u^beta is above 0 only where the predicted box overlaps the ground truth. Each group is measured against
the boxes that touch the rectangle around it.
"""

from __future__ import annotations

import torch
from torch import Tensor

from tood.alignment.assigners.assignment import Candidates, first_largest
from tood.alignment.assigners.touching import Search, touching
from tood.boxes import EPSILON, overlap_matrix

# Ground truths of a group: more of them share the search for boxes, fewer of them lie closer together.
GROUP = 16
# Pairs of a ground truth and a box that are measured at once: 1 MiB each temporary, which caches hold.
PAIRS = 1 << 18


def best_in_groups(search: Search, found: Candidates) -> None:
    """Fills in the `topk` priors of largest t of each ground truth, of equal ones the first.

    Where fewer have a t above 0, the rest stays at a t of 0; `found` [G, topk] comes with nothing in it.
    Memory: O(G * topk + N), plus a few MiB.
    """
    truths, priors = len(search.gt_boxes), len(search.boxes)
    order = _morton_order(search.gt_boxes)
    places = torch.arange(-(-truths // GROUP) * GROUP).clamp(max=truths - 1).view(-1, GROUP)
    groups = order[places]  # [M, g], the last one filled up with its last member
    corners = search.gt_boxes[groups]
    rectangles = torch.cat([corners[..., :2].amin(dim=1), corners[..., 2:].amax(dim=1)], dim=1)  # [M, 4]
    # The last is beyond every other and of no area: what groups with fewer boxes are filled up with.
    padded = torch.cat([search.boxes, search.boxes.new_full((1, 4), -1e9)])  # [N + 1, 4]
    flat = search.scores.reshape(-1)
    for which, near in touching(rectangles, search.sides(), priors, PAIRS // GROUP):
        members = groups[which]
        gt = search.gt_boxes[members]  # [m, g, 4]
        u = overlap_matrix(search.overlap, gt, padded[near])  # [m, g, n]
        prior = near.clamp(max=priors - 1)
        s = flat[(prior * search.scores.shape[1])[:, None] + search.gt_labels[members][..., None]]
        points = None if search.centres is None else search.centres[prior][:, None]
        t = search.metric(s, u, gt[:, :, None], points)
        values, place = first_largest(t, min(search.topk, t.shape[2]))
        k = values.shape[2]
        found.index[members, :k] = prior[:, None].expand(-1, GROUP, -1).gather(2, place)
        found.metric[members, :k] = values
        found.iou[members, :k] = u.gather(2, place)


def _morton_order(gt_boxes: Tensor) -> Tensor:
    """[G] the ground truths along a Z-shaped curve through their centres: neighbours in it lie close together."""
    middle = gt_boxes[:, :2] + gt_boxes[:, 2:]
    low = middle.amin(dim=0)
    cell = ((middle - low) / (middle.amax(dim=0) - low).amax().clamp(min=EPSILON) * 1023).long()
    for shift, mask in ((8, 0x00FF00FF), (4, 0x0F0F0F0F), (2, 0x33333333), (1, 0x55555555)):
        cell = (cell | (cell << shift)) & mask
    return (cell[:, 0] | (cell[:, 1] << 1)).argsort()
