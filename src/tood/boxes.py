"""Box arithmetic: areas, the IoU family, coders, clipping, class-wise NMS.

Boxes are [..., 4] tensors, x1 y1 x2 y2, in any unit that both operands share.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

# Same guard as the reference: two empty boxes overlap by 0, not by NaN.
EPSILON = 1e-6
# A predicted side is at most 1000/16 times its anchor's side: exp() stays finite.
MAX_LOG_RATIO = abs(math.log(16 / 1000))
# Elements of one block of an all-against-all comparison in NMS: 4 Mi elements, 16 MiB each temporary.
NMS_BLOCK = 1 << 22


def area(boxes: Tensor) -> Tensor:
    """Area of each box: [..., 4] -> [...]; inverted boxes count as empty."""
    return (boxes[..., 2] - boxes[..., 0]).clamp(min=0) * (boxes[..., 3] - boxes[..., 1]).clamp(min=0)


def iou_matrix(a: Tensor, b: Tensor) -> Tensor:
    """IoU of every box of `a` with every box of `b`: [..., G, 4], [..., N, 4] -> [..., G, N]."""
    return iou_pairs(a[..., :, None, :], b[..., None, :, :])


def iou_pairs(a: Tensor, b: Tensor) -> Tensor:
    """IoU of boxes at the same place (broadcasting): [..., 4], [..., 4] -> [...]."""
    overlap = _intersection(a, b)
    union = area(a) + area(b) - overlap
    return overlap / union.clamp(min=EPSILON)


def giou_pairs(a: Tensor, b: Tensor) -> Tensor:
    """Generalised IoU of boxes at the same place, in -1..1 (Rezatofighi et al. 2019): [..., 4], [..., 4] -> [...]."""
    overlap = _intersection(a, b)
    union = (area(a) + area(b) - overlap).clamp(min=EPSILON)
    width = torch.maximum(a[..., 2], b[..., 2]) - torch.minimum(a[..., 0], b[..., 0])
    height = torch.maximum(a[..., 3], b[..., 3]) - torch.minimum(a[..., 1], b[..., 1])
    hull = (width.clamp(min=0) * height.clamp(min=0)).clamp(min=EPSILON)
    return overlap / union - (hull - union) / hull


def _intersection(a: Tensor, b: Tensor) -> Tensor:
    width = torch.minimum(a[..., 2], b[..., 2]) - torch.maximum(a[..., 0], b[..., 0])
    height = torch.minimum(a[..., 3], b[..., 3]) - torch.maximum(a[..., 1], b[..., 1])
    return width.clamp(min=0) * height.clamp(min=0)


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


def decode_deltas(anchors: Tensor, deltas: Tensor, stds: tuple[float, float, float, float]) -> Tensor:
    """Boxes from anchors [..., 4] and normalised deltas (dx, dy, dw, dh) [..., 4] -> [..., 4] (Faster R-CNN coding)."""
    deltas = deltas * deltas.new_tensor(stds)
    size = anchors[..., 2:] - anchors[..., :2]
    centre = (anchors[..., :2] + anchors[..., 2:]) / 2 + deltas[..., :2] * size
    half = size * deltas[..., 2:].clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO).exp() / 2
    return torch.cat([centre - half, centre + half], dim=-1)


def clip(boxes: Tensor, height: float, width: float) -> Tensor:
    """Boxes cut to an image of `height` x `width`: [..., 4] -> [..., 4]."""
    limits = boxes.new_tensor([width, height, width, height])
    return torch.minimum(boxes.clamp(min=0), limits)


def nms(boxes: Tensor, scores: Tensor, labels: Tensor, iou_threshold: float) -> Tensor:
    """Exact greedy class-wise non-maximum suppression.

    A box is dropped where a kept box of its class and of higher score overlaps it by more than `iou_threshold`;
    among equal scores the box of lower index counts as the higher one.

    Args:
        boxes: [K, 4]; scores: [K]; labels: [K] int64.
        iou_threshold: IoU above which the lower of two boxes goes.

    Returns:
        [M] int64, indices of the kept boxes, best first. Memory: K * K / 8 * 8 bits for the overlap table, in blocks.
    """
    order = scores.argsort(descending=True, stable=True)
    boxes, labels = boxes[order], labels[order]
    count = len(order)
    if count == 0:
        return order
    suppresses = boxes.new_zeros((count, count), dtype=torch.bool)  # [K, K]: row suppresses column
    rows = max(1, NMS_BLOCK // count)
    for start in range(0, count, rows):
        # Only later boxes can be suppressed by these rows.
        block = slice(start, start + rows)
        overlap = iou_matrix(boxes[block], boxes[start:]) > iou_threshold
        overlap &= labels[block, None] == labels[None, start:]
        suppresses[block, start:] = overlap.triu(1)
    # Greedy NMS is the only fixed point of "kept = suppressed by no kept box": after i rounds all boxes that are i
    # suppressions deep are right, so the loop ends after the longest chain of suppressions, typically 3 to 6.
    kept = torch.ones(count, dtype=torch.bool, device=boxes.device)
    while True:
        updated = ~(suppresses & kept[:, None]).any(dim=0)
        if torch.equal(updated, kept):
            return order[kept]
        kept = updated
