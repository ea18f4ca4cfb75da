"""Doubtful places of a large picture, each to be looked at once more by a tile of its own that shows it whole."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from tood.inference.tile_merging import MergeConfig, Tile, TileBoxes, areas, pairs_between, pairs_inside, suppressed

# Share of a box in another of its class from which on it may be a piece of that.
_INSIDE = 0.3
# Share of a tile's side that is seen around a doubtful place, at least, on each side of it.
_AROUND = 1 / 6
# Pixels of the second look by which a box may reach out of the place.
_REACH = 8


@dataclass(frozen=True, eq=False)
class Doubt:
    """Boxes that may be of one object, and the tile that shows them all.

    Attributes:
        boxes: [n] their places among all.
        place: [4] float32, their hull, x1 y1 x2 y2 in pixels of the picture.
        tile: number of the tile that shows it.
    """

    boxes: NDArray[np.int64]
    place: NDArray[np.float32]
    tile: int


def doubts(found: TileBoxes, size: int, height: int, width: int) -> tuple[list[Doubt], list[Tile]]:
    """What tiles do not agree on: boxes that were cut, and those with another one of their class inside.

    Args:
        found: what merging gave.
        size: side of a tile, in pixels of the network's input.
        height, width: of the picture.

    Returns:
        The doubts, and the tiles to look at, several doubts to a tile where it shows enough around each.
    """
    inner, outer = pairs_inside(found, _INSIDE)
    near: dict[int, list[int]] = {}
    for one, two in zip(inner.tolist(), outer.tolist(), strict=True):
        near.setdefault(one, []).append(two)
        near.setdefault(two, []).append(one)
    doubtful: NDArray[np.bool_] = np.asarray(found.cut.any(axis=1))
    doubtful[outer] = True
    free = np.ones(len(found), np.bool_)
    kept: list[Doubt] = []
    tiles: list[Tile] = []
    windows = np.zeros((int(doubtful.sum()), 5), np.float32)
    for largest in np.argsort(-areas(found.boxes), kind="stable").tolist():
        if not (doubtful[largest] and free[largest]):
            continue
        place = _hull(found.boxes[[largest, *(other for other in near.get(largest, []) if free[other])]])
        alike = free & (found.labels == found.labels[largest])
        alike &= _shares_in(place, found.boxes) > _INSIDE
        alike[largest] = True
        group = np.flatnonzero(alike)
        free[group] = False
        tile = _tile_around(place, size, height, width)
        showing = np.flatnonzero(_shows(windows[: len(tiles)], _window(tile), place))
        if not len(showing):
            windows[len(tiles)] = _window(tile)
            tiles.append(tile)
        kept.append(Doubt(group, place, int(showing[0]) if len(showing) else len(tiles) - 1))
    return kept, tiles


def _hull(boxes: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.concatenate([boxes[:, :2].min(axis=0), boxes[:, 2:].max(axis=0)])


def _shares_in(place: NDArray[np.float32], boxes: NDArray[np.float32]) -> NDArray[np.float32]:
    """[n] the share of each box that lies in a place."""
    sides = np.minimum(boxes[:, 2:], place[2:]) - np.maximum(boxes[:, :2], place[:2])
    shares: NDArray[np.float32] = sides.clip(min=0).prod(axis=1) / np.maximum(areas(boxes), 1e-6)
    return shares


def _tile_around(place: NDArray[np.float32], size: int, height: int, width: int) -> Tile:
    """The tile with a place in its middle, as little reduced as shows enough around it."""
    side = float((place[2:] - place[:2]).max()) / (1 - 2 * _AROUND)
    reduction = min(max(1, int(np.ceil(side / size))), height, width)
    high, wide = min(size * reduction, height), min(size * reduction, width)
    middle = (place[:2] + place[2:]) / 2
    left = int(np.clip(middle[0] - wide / 2, 0, width - wide))
    top = int(np.clip(middle[1] - high / 2, 0, height - high))
    return Tile(top, left, high, wide, reduction)


def _window(tile: Tile) -> NDArray[np.float32]:
    """[5] x1 y1 x2 y2 in the picture's pixels, and the reduction."""
    return np.array([tile.left, tile.top, tile.left + tile.width, tile.top + tile.height, tile.reduction], np.float32)


def _shows(others: NDArray[np.float32], own: NDArray[np.float32], place: NDArray[np.float32]) -> NDArray[np.bool_]:
    """[n] whether each window [n, 5] shows a place as its own would: as much reduced, and with enough around it."""
    inwards = np.array([1, 1, -1, -1], np.float32)
    seen_around = (place - others[:, :4]) * inwards  # [n, 4]
    enough = np.minimum((place - own[:4]) * inwards, _AROUND * (own[2:4] - own[:2]).max())
    shows: NDArray[np.bool_] = (others[:, 4] == own[4]) & (seen_around >= enough).all(axis=1)
    return shows


def decided(
    found: TileBoxes, doubtful: Sequence[Doubt], again: Sequence[Tile], seen: Sequence[TileBoxes], config: MergeConfig
) -> TileBoxes:
    """All boxes once the doubts are looked at, best first.

    What the second look shows at a place is taken over, with the better score where it was seen before. Of the boxes in
    doubt, those go that were cut, or seen in a smaller copy than now, and those of which half lies in a box of the
    second look. Where that shows nothing they stay.

    Args:
        found: what merging gave.
        doubtful, again: from `doubts`.
        seen: what each of these tiles shows.
        config: as for merging.
    """
    gone = np.zeros(len(found), np.bool_)
    parts = []
    for doubt in doubtful:
        group, now = found.chosen(doubt.boxes), seen[doubt.tile]
        reach = np.array([-1, -1, 1, 1], np.float32) * (_REACH * again[doubt.tile].reduction)
        now = now.chosen((_shares_in(doubt.place + reach, now.boxes) > 0.5) & (now.labels == group.labels[0]))
        if not len(now):
            continue
        gone[doubt.boxes] = group.cut.any(axis=1) | (group.levels > again[doubt.tile].reduction)
        gone[doubt.boxes[pairs_inside(group, config.covered, now)[0]]] = True
        parts.append(_no_less_sure(now, group, config.iou))
    return suppressed(TileBoxes.together([found.chosen(~gone), *parts]), config.iou)


def _no_less_sure(now: TileBoxes, before: TileBoxes, iou: float) -> TileBoxes:
    """Boxes with the best score of those that they overlap, where that is better than their own."""
    same, earlier = pairs_between(now, before, iou)
    scores = now.scores.copy()
    np.maximum.at(scores, same, before.scores[earlier])
    return replace(now, scores=scores)
