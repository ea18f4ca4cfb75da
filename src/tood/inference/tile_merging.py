"""One set of boxes from the boxes of tiles that overlap, and from pictures of several sizes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

from tood.boxes import nms, overlapping_pairs

# Places of the first and of the second of each.
Pairs = tuple[NDArray[np.int64], NDArray[np.int64]]
# Pairs of boxes that are measured at once: 16 MiB a temporary.
_BLOCK = 1 << 21
# Share of its side by which a box may be wrong.
_INEXACT = 0.02


@dataclass(frozen=True)
class Tile:
    """A window of a picture: its place and size in the picture's pixels, and the reduction it is looked at with."""

    top: int
    left: int
    height: int
    width: int
    reduction: int


@dataclass(frozen=True, eq=False)
class TileBoxes:
    """Boxes of any number of tiles.

    Attributes:
        boxes: [K, 4] float32, x1 y1 x2 y2 in pixels of the whole picture.
        scores: [K] float32.
        labels: [K] int64.
        cut: [K, 4] bool, whether the left, top, right, bottom side lies on a border of the tile that is none of the
            picture's: there the object may go on.
        levels: [K] int64, the reduction that the tile was looked at with.
    """

    boxes: NDArray[np.float32]
    scores: NDArray[np.float32]
    labels: NDArray[np.int64]
    cut: NDArray[np.bool_]
    levels: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.boxes)

    def chosen(self, which: NDArray[np.bool_] | NDArray[np.int64]) -> TileBoxes:
        """Some of them, by a mask or by places."""
        return TileBoxes(self.boxes[which], self.scores[which], self.labels[which], self.cut[which], self.levels[which])

    @staticmethod
    def together(parts: list[TileBoxes]) -> TileBoxes:
        """All of several."""
        return TileBoxes(
            np.concatenate([np.zeros((0, 4), np.float32), *(part.boxes for part in parts)]),
            np.concatenate([np.zeros(0, np.float32), *(part.scores for part in parts)]),
            np.concatenate([np.zeros(0, np.int64), *(part.labels for part in parts)]),
            np.concatenate([np.zeros((0, 4), np.bool_), *(part.cut for part in parts)]),
            np.concatenate([np.zeros(0, np.int64), *(part.levels for part in parts)]),
        )


@dataclass(frozen=True)
class MergeConfig:
    """When boxes of different tiles are of one object.

    Attributes:
        iou: overlap above which the lower of two whole boxes goes, seen in copies of one size.
        across: overlap with a box that was seen in a larger copy, above which a box goes: that one is more exact.
        covered: share of a box that was cut above which it is a piece of a whole one, and goes.
        alike: overlap, along a seam, of two boxes cut by it from which on they are halves of one object.
    """

    iou: float = 0.5
    across: float = 0.35
    covered: float = 0.5
    alike: float = 0.5


def merge(found: TileBoxes, config: MergeConfig = MergeConfig()) -> TileBoxes:
    """Each object once, best first.

    Whole boxes are held against each other as in NMS, from the full picture to its smaller copies. A box that was cut
    by its tile's border goes where a whole one covers it; what is left of these was seen whole by no tile, and halves
    that meet are put together, with the better score. Time grows with the square of the number of cut boxes, memory
    does not.
    """
    is_cut: NDArray[np.bool_] = np.asarray(found.cut.any(axis=1))
    whole, cut = found.chosen(~is_cut), found.chosen(is_cut)
    whole = _by_levels(whole, config)
    cut = cut.chosen(~_marked(cut, pairs_inside(cut, config.covered, _widened(whole))[0]))
    joined = _joined(cut, config.alike)
    # A half that met nothing, inside of what others became.
    joined = joined.chosen(np.argsort(-areas(joined.boxes), kind="stable"))
    inner, outer = pairs_inside(joined, config.covered)
    joined = joined.chosen(~_marked(joined, inner[outer < inner]))
    joined = joined.chosen(~_overlapped(joined, whole, config.iou))
    kept = TileBoxes.together([whole, joined])
    return kept.chosen(np.argsort(-kept.scores, kind="stable"))


def _by_levels(whole: TileBoxes, config: MergeConfig) -> TileBoxes:
    """Of whole boxes each object's, from the largest copy that has it."""
    kept = TileBoxes.together([])
    for level in np.unique(whole.levels):
        of_level: NDArray[np.bool_] = np.equal(whole.levels, level)
        found = suppressed(whole.chosen(of_level), config.iou)
        kept = TileBoxes.together([kept, found.chosen(~_overlapped(found, kept, config.across))])
    return kept


def _overlapped(found: TileBoxes, others: TileBoxes, iou: float) -> NDArray[np.bool_]:
    """[n] whether each has more than this in common with another one of its class."""
    return _marked(found, pairs_between(found, others, iou)[0])


def areas(boxes: NDArray[np.float32]) -> NDArray[np.float32]:
    """[n] of boxes [n, 4]."""
    sides = boxes[:, 2:] - boxes[:, :2]
    return sides[:, 0] * sides[:, 1]


def suppressed(found: TileBoxes, iou: float) -> TileBoxes:
    """What NMS leaves, best first."""
    boxes, scores, labels = (torch.from_numpy(part) for part in (found.boxes, found.scores, found.labels))
    kept = nms(boxes, scores, labels, iou)
    return found.chosen(kept.numpy())


def _widened(found: TileBoxes) -> TileBoxes:
    """Boxes as far as they may reach: by a pixel of the copy that they were seen in, and a little of their sides."""
    reach = found.levels[:, None] + _INEXACT * (found.boxes[:, 2:] - found.boxes[:, :2])
    boxes = np.concatenate([found.boxes[:, :2] - reach, found.boxes[:, 2:] + reach], axis=1).astype(np.float32)
    return replace(found, boxes=boxes)


def pairs_between(found: TileBoxes, others: TileBoxes, iou: float) -> Pairs:
    """Boxes of one class with an IoU above this, as places in both."""
    boxes, labels = np.concatenate([found.boxes, others.boxes]), np.concatenate([found.labels, others.labels])
    lower, higher = overlapping_pairs(boxes, labels, iou)
    between = (lower < len(found)) & (higher >= len(found))
    return lower[between], higher[between] - len(found)


def pairs_inside(inner: TileBoxes, share: float, outer: TileBoxes | None = None) -> Pairs:
    """Boxes of which more than this share lies in an outer one of their class, as places in both.

    Without `outer`, of the inner ones in each other. Time and memory grow with the number of overlapping pairs.
    """
    if outer is None:
        lower, higher = overlapping_pairs(inner.boxes, inner.labels, 0)
        inside, around = np.concatenate([lower, higher]), np.concatenate([higher, lower])
    else:
        inside, around = pairs_between(inner, outer, 0)
    a, b = inner.boxes[inside], (inner if outer is None else outer).boxes[around]
    sides = np.minimum(a[:, 2:], b[:, 2:]) - np.maximum(a[:, :2], b[:, :2])
    enough = sides.prod(axis=1) > share * areas(a)
    return inside[enough], around[enough]


def _marked(found: TileBoxes, places: NDArray[np.int64]) -> NDArray[np.bool_]:
    """[n] whether each is at one of these places."""
    marked = np.zeros(len(found), np.bool_)
    marked[places] = True
    return marked


def _joined(cut: TileBoxes, alike: float) -> TileBoxes:
    """Boxes that continue each other across a seam as their hull."""
    group = np.arange(len(cut))
    for one, two in _halves(cut, alike):
        first, second = _root(group, one), _root(group, two)
        group[max(first, second)] = min(first, second)
    roots = np.array([_root(group, place) for place in range(len(cut))], np.int64)
    names, inverse = np.unique(roots, return_inverse=True)
    hulls = cut.chosen(names)
    boxes, scores = hulls.boxes.copy(), hulls.scores.copy()
    np.minimum.at(boxes[:, :2], inverse, cut.boxes[:, :2])
    np.maximum.at(boxes[:, 2:], inverse, cut.boxes[:, 2:])
    np.maximum.at(scores, inverse, cut.scores)
    return replace(hulls, boxes=boxes, scores=scores)


def _root(group: NDArray[np.int64], place: int) -> int:
    while group[place] != place:
        group[place] = group[group[place]]
        place = int(group[place])
    return place


def _halves(cut: TileBoxes, alike: float) -> Iterator[tuple[int, int]]:
    """Pairs of boxes of one class and level that a seam parts: cut on facing sides, meeting, alike along the seam."""
    step = max(1, _BLOCK // max(1, len(cut)))
    for start in range(0, len(cut), step):
        rows = np.arange(len(cut))[start : start + step]
        a, b = cut.boxes[rows][:, None], cut.boxes[None]
        low, high = np.maximum(a[..., :2], b[..., :2]), np.minimum(a[..., 2:], b[..., 2:])
        common = (high - low).clip(min=0)  # [n, m, 2]
        hull = np.maximum(a[..., 2:], b[..., 2:]) - np.minimum(a[..., :2], b[..., :2])
        similar = common / np.maximum(hull, 1e-6) >= alike  # [n, m, 2], along x and along y
        meets = (common > 0).all(axis=2)
        same = (cut.labels[rows][:, None] == cut.labels) & (cut.levels[rows][:, None] == cut.levels)
        across_x = cut.cut[rows][:, None, 2] & cut.cut[:, 0] & similar[..., 1]
        across_y = cut.cut[rows][:, None, 3] & cut.cut[:, 1] & similar[..., 0]
        pairs = same & meets & (across_x | across_y)
        for row, column in zip(*np.nonzero(pairs), strict=True):
            if rows[row] != column:
                yield int(rows[row]), int(column)
