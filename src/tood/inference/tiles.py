"""Pictures of any size looked at tile by tile, small objects at full size and large ones in smaller copies."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

import numpy as np
import torch

from tood.data.images.windows import Windows, starts
from tood.engines import FixedInput
from tood.errors import SettingError
from tood.inference.predictor import read_ahead
from tood.inference.second_look import decided, doubts
from tood.inference.tile_merging import MergeConfig, Tile, TileBoxes, merge
from tood.structures import Detections

if TYPE_CHECKING:
    from tood.inference.detector import Detector, PreparedImage

# Each smaller copy has a quarter of the sides: an object that a tile's border cuts is whole in the next one, and still
# large enough there. All copies together cost a fifteenth of the full picture.
_STEP = 4
# Share of a tile's side within which a box touches its border.
_MARGIN = 0.01
# Share of the overlap up to which an object certainly was whole in some tile: boxes are not exact.
_CERTAIN = 0.8


@dataclass(frozen=True)
class TileConfig:
    """How a large picture is looked at.

    Attributes:
        size: side of a tile in pixels; None takes the shorter side of the model's input, so that nothing is scaled.
        overlap: share of its side that a tile has in common with the next, at least: objects up to that size are whole
            in one of them.
        smaller: look at copies of a quarter, a sixteenth ... of the sides, too, down to one that fits a tile: for
            objects that are larger than the overlap.
        second_look: look once more, by a tile of their own, at places where tiles do not agree.
        merge: when boxes of different tiles are of one object.
    """

    size: int | None = None
    overlap: float = 0.2
    smaller: bool = True
    second_look: bool = True
    merge: MergeConfig = field(default_factory=MergeConfig)

    def __post_init__(self) -> None:
        if self.size is not None and self.size < 32:
            raise SettingError("tiles.size", f"is {self.size}: give pixels, at least 32")
        if not 0 <= self.overlap <= 0.8:
            raise SettingError("tiles.overlap", f"is {self.overlap}: give a share from 0 to 0.8")


def tiles_of(height: int, width: int, size: int, config: TileConfig) -> list[Tile]:
    """The tiles of a picture of so many pixels, row by row, the full picture first, then its smaller copies."""
    found = []
    reduction = 1
    while True:
        high, wide = height // reduction, width // reduction
        overlap = round(config.overlap * size)
        found += [
            Tile(top * reduction, left * reduction, min(size, high) * reduction, min(size, wide) * reduction, reduction)
            for top in starts(high, size, overlap)
            for left in starts(wide, size, overlap)
        ]
        fits = high <= size and wide <= size
        reduction *= _STEP
        if fits or not config.smaller or min(height, width) // reduction < 1:
            return found


class TileStore(Protocol):
    """What is kept of a picture's tiles while it is looked at, to go on with."""

    def known(self) -> Sequence[TileBoxes]:
        """The results of the first batches."""

    def add(self, found: TileBoxes) -> None:
        """Keeps the result of the next batch."""


def detect_in_tiles(
    detector: Detector,
    picture: Windows,
    config: TileConfig,
    *,
    batch_size: int = 4,
    store: TileStore | None = None,
    progress: Callable[[int, int | None], None] = lambda done, of: None,
    stop: Callable[[], bool] = lambda: False,
) -> Detections | None:
    """What is on a picture, each object once; None if it was stopped.

    A thread reads the next tiles while the network computes.

    Args:
        detector: finds the objects.
        picture: to be read by windows.
        config: size, overlap and merging.
        batch_size: tiles computed together.
        store: what was found before, and keeps what is found now; second looks are not kept.
        progress: told how many tiles are done, and how many there are: more once it is known what to look at again.
        stop: asked before each batch whether to end.

    Raises:
        PictureError: if a part of the picture cannot be read.
    """
    own = detector.input
    size = config.size or (min(own.height, own.width) if isinstance(own, FixedInput) else own.short)
    tiles = tiles_of(picture.height, picture.width, size, config)
    whole_below = _CERTAIN * config.overlap * size / _STEP
    found = list(store.known()) if store is not None else []
    done = min(len(found) * batch_size, len(tiles))
    progress(done, len(tiles))

    for batch in _looked_at(detector, picture, tiles[done:], batch_size, stop):
        found.append(TileBoxes.together([_in_picture(*pair, picture, whole_below) for pair in batch]))
        if store is not None:
            store.add(found[-1])
        done += len(batch)
        progress(done, len(tiles))
    if done < len(tiles):
        return None
    kept = merge(TileBoxes.together(found), config.merge)
    if config.second_look:
        doubtful, again = doubts(kept, size, picture.height, picture.width)
        seen: list[TileBoxes] = []
        for batch in _looked_at(detector, picture, again, batch_size, stop):
            seen += [_in_picture(*pair, picture, whole_below=0) for pair in batch]
            progress(done + len(seen), len(tiles) + len(again))
        if len(seen) < len(again):
            return None
        kept = decided(kept, doubtful, again, seen, config.merge)
    return Detections(
        torch.from_numpy(kept.boxes),
        torch.from_numpy(kept.scores),
        torch.from_numpy(kept.labels),
        detector.class_names,
        picture.name,
    )


def _looked_at(
    detector: Detector, picture: Windows, tiles: Sequence[Tile], batch_size: int, stop: Callable[[], bool]
) -> Iterator[list[tuple[Tile, Detections]]]:
    """Batches of tiles with what is on each, in the tile's pixels; ends early where it is to stop."""

    def read(tile: Tile) -> PreparedImage:
        return detector.prepare(picture.read(tile.top, tile.left, tile.height, tile.width, tile.reduction))

    with closing(read_ahead(tiles, read, batch_size)) as ahead:
        for batch in _batches(tiles, batch_size):
            if stop():
                return
            pictures = [job() for _, job in zip(batch, ahead, strict=False)]
            yield list(zip(batch, detector.detect(pictures), strict=True))


def _batches(tiles: Sequence[Tile], size: int) -> Iterator[Sequence[Tile]]:
    return (tiles[start : start + size] for start in range(0, len(tiles), size))


def _in_picture(tile: Tile, found: Detections, picture: Windows, whole_below: float) -> TileBoxes:
    """A tile's boxes in the picture's pixels, and which of their sides its borders cut.

    In a smaller copy, those whose sides are below `whole_below` in its own pixels are left out: they are smaller than
    the overlap of the next larger copy's tiles, where they were seen whole and better.
    """
    if tile.reduction > 1:
        sides = (found.boxes[:, 2:] - found.boxes[:, :2]).amax(dim=1)
        found = found.chosen(sides >= whole_below)
    boxes = found.boxes.numpy() * np.float32(tile.reduction)
    far = np.array([tile.width, tile.height], np.float32)
    margin = _MARGIN * far
    cut = np.concatenate([boxes[:, :2] < margin, boxes[:, 2:] > far - margin], axis=1)
    # The picture's own border cuts nothing that more could be seen of; a copy leaves out up to a pixel of its own.
    right, bottom = tile.left + tile.width, tile.top + tile.height
    inner = [
        tile.left > 0,
        tile.top > 0,
        right + tile.reduction <= picture.width,
        bottom + tile.reduction <= picture.height,
    ]
    place = np.array([tile.left, tile.top] * 2, np.float32)
    count = len(boxes)
    return TileBoxes(
        boxes + place,
        found.scores.numpy().astype(np.float32),
        found.labels.numpy().astype(np.int64),
        cut & np.array(inner),
        np.full(count, tile.reduction, np.int64),
    )
