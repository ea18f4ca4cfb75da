"""Whether long lines of labels are boxes with keypoints or polygons, where no `kpt_shape` tells.

17 keypoints of two numbers make 39 numbers a line, and so does a polygon of 19 points. What tells them apart is what
all lines of a dataset have in common: poses all have the same length, and the first four numbers are a box inside of
the picture that encloses every point, as the first two points of a polygon hardly are all over a dataset. Where both
readings are possible, a box is betrayed by its centre amidst its points, by a width and height that as a point would
lie far from the others, or by several points at nought (keypoints that nobody saw).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tood.data.formats.yolo_labels import Keypoints

# An oriented box is four corners, and so are a box and two keypoints.
_CORNERS_COLUMNS = 9
MOST_LINES = 2000
"""So many lines are enough to look at."""
_SHARE_POSSIBLE, _SHARE_PLAUSIBLE, _SHARE_EVIDENT = 0.7, 0.95, 0.6
# So far beyond its box may a keypoint lie, and a box beyond its picture, in parts of the box and of the picture.
_BEYOND_BOX, _BEYOND_PICTURE = 0.1, 0.02


@dataclass(frozen=True)
class Poses:
    """Lines that may be poses: what they would be, and whether nothing else is likely."""

    keypoints: Keypoints
    clear: bool


def find_poses(lines: Sequence[Sequence[float]]) -> Poses | None:
    """What the lines of a dataset that were taken for polygons are, if they may be poses; None if they are polygons.

    Args:
        lines: the numbers of each line, its class first.
    """
    if not lines or len(lines[0]) <= _CORNERS_COLUMNS or len(set(map(len, lines))) > 1:
        return None
    table = np.array(lines, np.float64)
    columns = table.shape[1] - 5
    if not np.isfinite(table).all():
        return None
    if columns % 3 == 0 and np.isin(table[:, 7::3], (0, 1, 2)).all() and _plausible(table, 3) >= _SHARE_PLAUSIBLE:
        return Poses(Keypoints(columns // 3, 3), clear=True)
    if columns % 2:
        return None
    keypoints, share = Keypoints(columns // 2, 2), _plausible(table, 2)
    points = table[:, 5:].reshape(len(table), -1, 2)
    if bool((points == points[:, :1]).all()):  # many times one point, as programs fill in: no polygon has that
        return Poses(keypoints, clear=True)
    if share < _SHARE_POSSIBLE:
        return None
    return Poses(keypoints, clear=share >= _SHARE_PLAUSIBLE and bool(_evident(table).mean() >= _SHARE_EVIDENT))


def _plausible(table: NDArray[np.float64], numbers: int) -> float:
    """In what share of the lines [G, 1 + 4 + points * numbers] the first four numbers are a box of the points."""
    centres, sizes = table[:, None, 1:3], table[:, None, 3:5]
    points = table[:, 5:].reshape(len(table), -1, numbers)[..., :2]  # [G, points, 2]
    unseen = (points == 0).all(axis=2)
    inside = (np.abs(points - centres) <= sizes * (0.5 + _BEYOND_BOX)).all(axis=2)
    box = np.concatenate([centres - sizes / 2, centres + sizes / 2], axis=1)
    in_picture = ((box >= -_BEYOND_PICTURE) & (box <= 1 + _BEYOND_PICTURE)).all(axis=(1, 2))
    return float(((inside | unseen).all(axis=1) & in_picture).mean())


def _evident(table: NDArray[np.float64]) -> NDArray[np.bool_]:
    """[G] whether a line [G, 1 + 4 + points * 2] makes no sense as a polygon."""
    points = table[:, 5:].reshape(len(table), -1, 2)
    unseen = (points == 0).all(axis=2)
    low = np.where(unseen[..., None], np.inf, points).min(axis=1)
    high = np.where(unseen[..., None], -np.inf, points).max(axis=1)
    none_seen = unseen.all(axis=1)
    low, high = np.where(none_seen[:, None], 0.0, low), np.where(none_seen[:, None], 0.0, high)
    span = high - low
    first, second = table[:, 1:3], table[:, 3:5]
    amidst = ((first > low + span / 4) & (first < high - span / 4)).all(axis=1)
    apart = ((second < low - span / 2) | (second > high + span / 2)).any(axis=1)
    result: NDArray[np.bool_] = amidst | apart | (unseen.sum(axis=1) > 1)
    return result
