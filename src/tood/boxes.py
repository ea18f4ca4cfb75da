"""Box arithmetic: areas, the IoU family, coders, clipping, class-wise NMS.

Boxes are [..., 4] tensors, x1 y1 x2 y2, in any unit that both operands share.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tood.ops.arithmetic import constants

Overlap: TypeAlias = Literal["iou", "ciou"]
"""How much two boxes have in common: their IoU, or their complete IoU, 0 where that is negative."""

# Same guard as the reference: two empty boxes overlap by 0, not by NaN.
EPSILON = 1e-6
# A predicted side is at most 1000/16 times its anchor's side: exp() stays finite.
MAX_LOG_RATIO = abs(math.log(16 / 1000))
# Pairs of boxes that NMS measures at once: 16 MiB each temporary.
NMS_BLOCK = 1 << 20


def area(boxes: Tensor) -> Tensor:
    """Area of each box: [..., 4] -> [...]; inverted boxes count as empty."""
    width, height = boxes[..., 2] - boxes[..., 0], boxes[..., 3] - boxes[..., 1]
    return width.clamp_(min=0).mul_(height.clamp_(min=0))


def iou_matrix(a: Tensor, b: Tensor) -> Tensor:
    """IoU of every box of `a` with every box of `b`: [..., G, 4], [..., N, 4] -> [..., G, N]."""
    # Contiguous sides of `b`: four at a stride of four are read several times as slowly.
    sides = b.movedim(-1, 0).contiguous()[..., None, :]  # [4, ..., 1, N]
    overlap = _intersection(a[..., None, :].unbind(dim=-1), sides.unbind())
    union = (area(a)[..., None] + area(b)[..., None, :]).sub_(overlap)
    return overlap.div_(union.clamp_(min=EPSILON))


def iou_pairs(a: Tensor, b: Tensor) -> Tensor:
    """IoU of boxes at the same place (broadcasting): [..., 4], [..., 4] -> [...]."""
    overlap = _intersection(a.unbind(dim=-1), b.unbind(dim=-1))
    union = area(a) + area(b) - overlap
    return overlap / union.clamp(min=EPSILON)


def giou_pairs(a: Tensor, b: Tensor) -> Tensor:
    """Generalised IoU of boxes at the same place, in -1..1 (Rezatofighi et al. 2019): [..., 4], [..., 4] -> [...]."""
    overlap, union, hull = _overlap_union_hull(a, b)
    return overlap / union - (hull - union) / hull


def common_share_pairs(a: Tensor, b: Tensor) -> Tensor:
    """IoU less the share of the hull that boxes at the same place do not have in common: [..., 4], [..., 4] -> [...].

    Generalised IoU with the intersection in place of the union, in -1..1.
    """
    overlap, union, hull = _overlap_union_hull(a, b)
    return overlap / union - (hull - overlap) / hull


def _overlap_union_hull(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Areas of boxes at the same place in common, together, and of the smallest box around both: [...] each."""
    overlap = _intersection(a.unbind(dim=-1), b.unbind(dim=-1))
    union = (area(a) + area(b) - overlap).clamp(min=EPSILON)
    width = torch.maximum(a[..., 2], b[..., 2]) - torch.minimum(a[..., 0], b[..., 0])
    height = torch.maximum(a[..., 3], b[..., 3]) - torch.minimum(a[..., 1], b[..., 1])
    return overlap, union, (width.clamp(min=0) * height.clamp(min=0)).clamp(min=EPSILON)


def ciou_pairs(a: Tensor, b: Tensor) -> Tensor:
    """Complete IoU of boxes at the same place, at most 1 (Zheng et al. 2020): [..., 4], [..., 4] -> [...].

    IoU, less the squared distance of the centres over the squared diagonal of the hull, less a term for unlike ratios
    of the sides, whose factor is a constant to the gradient, as in the paper.
    """
    overlap = _intersection(a.unbind(dim=-1), b.unbind(dim=-1))
    iou = overlap / (area(a) + area(b) - overlap).clamp(min=EPSILON)
    hull = torch.maximum(a[..., 2:], b[..., 2:]) - torch.minimum(a[..., :2], b[..., :2])
    between = (a[..., :2] + a[..., 2:] - b[..., :2] - b[..., 2:]) / 2
    apart = between.square().sum(dim=-1) / hull.square().sum(dim=-1).clamp(min=EPSILON)
    turn_a, turn_b = (torch.atan2(box[..., 2] - box[..., 0], box[..., 3] - box[..., 1]) for box in (a, b))
    unlike = (turn_a - turn_b).square() * (4 / math.pi**2)
    with torch.no_grad():
        factor = unlike / (1 - iou + unlike).clamp(min=EPSILON)
    return iou - apart - factor * unlike


def overlap_pairs(kind: Overlap, a: Tensor, b: Tensor) -> Tensor:
    """Overlap of boxes at the same place (broadcasting), from 0: [..., 4], [..., 4] -> [...]."""
    return iou_pairs(a, b) if kind == "iou" else ciou_pairs(a, b).clamp(min=0)


def overlap_matrix(kind: Overlap, a: Tensor, b: Tensor) -> Tensor:
    """Overlap of every box of `a` with every box of `b`, from 0: [..., G, 4], [..., N, 4] -> [..., G, N]."""
    return iou_matrix(a, b) if kind == "iou" else ciou_pairs(a[..., None, :], b[..., None, :, :]).clamp(min=0)


def _intersection(a: Sequence[Tensor], b: Sequence[Tensor]) -> Tensor:
    """Of boxes given by their sides x1, y1, x2, y2, which broadcast."""
    # In place: of large matrices the memory that is asked for costs as much as the arithmetic.
    width = torch.minimum(a[2], b[2]).sub_(torch.maximum(a[0], b[0])).clamp_(min=0)
    height = torch.minimum(a[3], b[3]).sub_(torch.maximum(a[1], b[1])).clamp_(min=0)
    return width.mul_(height)


def inside_distance(points: Tensor, boxes: Tensor) -> Tensor:
    """Distance of a point to a box's nearest side, negative outside: [..., 2], [..., 4] -> [...] (broadcasting)."""
    x, y = points[..., 0], points[..., 1]
    horizontal = torch.minimum(x - boxes[..., 0], boxes[..., 2] - x)
    vertical = torch.minimum(y - boxes[..., 1], boxes[..., 3] - y)
    return torch.minimum(horizontal, vertical)


def centerness(points: Tensor, boxes: Tensor) -> Tensor:
    """Centerness of points within boxes (FCOS, eq. 3): [..., 2], [..., 4] -> [...] in 0..1, 0 outside."""
    left, top = points[..., 0] - boxes[..., 0], points[..., 1] - boxes[..., 1]
    right, bottom = boxes[..., 2] - points[..., 0], boxes[..., 3] - points[..., 1]
    horizontal = torch.minimum(left, right).clamp(min=0) / torch.maximum(left, right).clamp(min=EPSILON)
    vertical = torch.minimum(top, bottom).clamp(min=0) / torch.maximum(top, bottom).clamp(min=EPSILON)
    return (horizontal * vertical).sqrt()


def decode_distances(points: Tensor, distances: Tensor) -> Tensor:
    """Boxes from points [..., 2] and their distances to the left, top, right, bottom sides [..., 4] -> [..., 4]."""
    return torch.cat([points - distances[..., :2], points + distances[..., 2:]], dim=-1)


def encode_distances(points: Tensor, boxes: Tensor) -> Tensor:
    """Distances of points [..., 2] to the left, top, right, bottom sides of boxes [..., 4] -> [..., 4]."""
    return torch.cat([points - boxes[..., :2], boxes[..., 2:] - points], dim=-1)


def decode_deltas(anchors: Tensor, deltas: Tensor, stds: tuple[float, float, float, float]) -> Tensor:
    """Boxes from anchors [..., 4] and normalised deltas (dx, dy, dw, dh) [..., 4] -> [..., 4] (Faster R-CNN coding)."""
    deltas = deltas * constants(stds, deltas)
    size = anchors[..., 2:] - anchors[..., :2]
    centre = (anchors[..., :2] + anchors[..., 2:]) / 2 + deltas[..., :2] * size
    half = size * deltas[..., 2:].clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO).exp() / 2
    return torch.cat([centre - half, centre + half], dim=-1)


def decode_cells(points: Tensor, strides: Tensor, predicted: Tensor) -> Tensor:
    """Boxes from places, and their centres and logarithmic sizes in strides (YOLOX's coding).

    Args:
        points: [N, 2] what the centres are counted from.
        strides: [N].
        predicted: [..., N, 4] distance of the centre to the point (x, y), logarithm of the size (width, height).

    Returns:
        [..., N, 4] in the unit of the points.
    """
    centre = points + predicted[..., :2] * strides[:, None]
    half = predicted[..., 2:].exp() * strides[:, None] / 2
    return torch.cat([centre - half, centre + half], dim=-1)


def clip(boxes: Tensor, limits: Tensor) -> Tensor:
    """Boxes cut to an image whose width and height are the [2] `limits`: [..., 4] -> [..., 4]."""
    return torch.minimum(boxes.clamp(min=0), limits.repeat(2))


def nms(boxes: Tensor, scores: Tensor, labels: Tensor, iou_threshold: float) -> Tensor:
    """Exact greedy class-wise non-maximum suppression.

    A box is dropped where a kept box of its class and of higher score overlaps it by more than `iou_threshold`;
    among equal scores the box of lower index counts as the higher one.

    Args:
        boxes: [K, 4] finite; scores: [K]; labels: [K] int64, from 0.
        iou_threshold: IoU in 0..1 above which the lower of two boxes goes.

    Returns:
        [M] int64, indices of the kept boxes, best first. Time and memory grow with the number of overlapping pairs.
    """
    # In numpy, whatever the device: many small steps, which PyTorch's threads slow down where cores are shared.
    corners = boxes.detach().float().cpu().numpy()
    order = scores.detach().float().neg().cpu().numpy().argsort(kind="stable")
    better, worse = overlapping_pairs(corners[order], labels.cpu().numpy()[order], iou_threshold)
    # Greedy NMS is the only fixed point of "kept = suppressed by no kept box": after i rounds all boxes that are i
    # suppressions deep are right, so the loop ends after the longest chain of suppressions, typically 3 to 6.
    kept = np.ones(len(order), np.bool_)
    while True:
        updated = np.ones_like(kept)
        updated[worse[kept[better]]] = False
        if np.array_equal(updated, kept):
            return torch.from_numpy(order[kept]).to(boxes.device)
        kept = updated


def overlapping_pairs(
    boxes: NDArray[np.float32], labels: NDArray[np.int64], iou_threshold: float
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Pairs of one class with IoU above the threshold: the lower and the higher index of each, [E] and [E].

    Args:
        boxes: [K, 4] finite.
        labels: [K] from 0.
        iou_threshold: IoU in 0..1; 0 gives all pairs that have an area in common.

    A sweep from left to right: an IoU above t needs more than t of both widths in common, so the partner that begins
    further right begins within the first 1 - t of the other's width. Few pairs are left to measure.
    """
    count = len(boxes)
    left, top, right, bottom = boxes.T.copy()  # a row each: contiguous
    widths = (right - left).clip(min=0)
    areas = widths * (bottom - top).clip(min=0)
    # The slack keeps rounding from losing a pair; the IoU itself decides.
    reach = left + (1 - iou_threshold + 1e-3) * widths + 1e-5 * np.abs(left)
    ascending = np.sort(left)
    # Integer keys that order by class, then by left side.
    begin = labels * (count + 1) + ascending.searchsorted(left)
    end = labels * (count + 1) + ascending.searchsorted(reach, side="right")
    sweep = begin.argsort(kind="stable")
    # [K] the number of boxes right behind each in sweep order that begin within its reach.
    partners = (begin[sweep].searchsorted(end[sweep]) - np.arange(count) - 1).clip(min=0)
    pairs_up_to = partners.cumsum()
    budgets = np.arange(NMS_BLOCK, partners.sum() + NMS_BLOCK, NMS_BLOCK)
    stops = (pairs_up_to.searchsorted(budgets) + 1).clip(max=count).tolist()
    lower, higher = [], []
    start = 0
    for stop in [*stops, count]:
        block = slice(start, max(stop, start))
        start = block.stop
        number = partners[block]
        first = np.arange(block.start, block.stop).repeat(number)
        step = np.arange(len(first)) - (number.cumsum() - number).repeat(number)
        a, b = sweep[first], sweep[first + 1 + step]
        height = np.minimum(bottom[a], bottom[b]) - np.maximum(top[a], top[b])
        a, b, height = a[height > 0], b[height > 0], height[height > 0]
        # The second begins further right.
        overlap = (np.minimum(right[a], right[b]) - left[b]).clip(min=0) * height
        over = overlap / np.maximum(areas[a] + areas[b] - overlap, np.float32(EPSILON)) > iou_threshold
        lower.append(np.minimum(a, b)[over])
        higher.append(np.maximum(a, b)[over])
    return np.concatenate(lower), np.concatenate(higher)
