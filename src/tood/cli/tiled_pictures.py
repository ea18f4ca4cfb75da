"""Large pictures of `tood predict`, looked at tile by tile."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import typer
from numpy.typing import NDArray

from tood.cli.prediction_folder import PredictionFolder
from tood.cli.tile_journal import TileJournal
from tood.data.images import pixel_limit
from tood.data.images.opening import open_windows
from tood.data.images.tiff_windows import is_tiff_file, tiff_pixels
from tood.data.images.windows import ArrayWindows, Windows
from tood.drawing import draw_named_boxes
from tood.errors import ToodError
from tood.file_identity import size_and_time
from tood.inference import Detector, TileConfig, detect_in_tiles, is_url
from tood.inference.sources import ImageSource
from tood.progress_bar import progress_bar
from tood.stop import StopSignal
from tood.structures import Detections

# Pixels of an annotated picture; a larger one is drawn at a half, a quarter ... of its sides.
_DRAWN = 25_000_000


def is_beyond_limit(image: str | Path) -> bool:
    """Whether a picture is larger than what is decoded whole, and of a kind that is read by windows."""
    if is_url(str(image)):
        return False
    path = Path(image)
    return is_tiff_file(path) and tiff_pixels(path) > pixel_limit()


def summary(result: Detections) -> str:
    """How many of each class, in a line."""
    counts = Counter(result.names)
    return ", ".join(f"{count} {name}" for name, count in counts.most_common()) or "nothing found"


class TiledPictures:
    """Looks at pictures tile by tile, and keeps what each batch of tiles gave until the picture is done.

    Args:
        detector: finds the objects.
        config: of the tiles.
        batch_size: tiles computed together.
        settings: whatever decides the results.
        folder: the results go to.
        drawn: write annotated pictures.
        resume: go on with the tiles of a run that did not end.
    """

    def __init__(
        self,
        detector: Detector,
        config: TileConfig,
        batch_size: int,
        settings: Mapping[str, Any],
        folder: PredictionFolder,
        drawn: bool,
        *,
        resume: bool,
    ) -> None:
        self._detector, self._config, self._batch_size = detector, config, batch_size
        self._settings = {**settings, "merging": asdict(config.merge), "smaller": config.smaller}
        self._folder, self._drawn, self._resume = folder, drawn, resume

    def look_at(self, images: Sequence[str | Path], failures: list[ToodError], stop: StopSignal, *, told: bool) -> int:
        """Number of the pictures that are done; errors are appended, `told` says why they go by tiles."""
        done = 0
        for image in images:
            if stop.number:
                break
            if told:
                typer.echo(f"{image}: beyond {pixel_limit():,} pixels, so it is looked at by tiles", err=True)
            try:
                done += self._one(image, stop)
            except ToodError as error:
                failures.append(error)
        return done

    def _one(self, image: str | Path, stop: StopSignal) -> bool:
        picture = self._opened(image)
        identity = {**self._settings, "size": [picture.height, picture.width], "changed": size_and_time(str(image))}
        writes = self._folder.writes
        journal = TileJournal(self._folder.out, str(image), identity, resume=self._resume) if writes else None
        done = False
        try:
            with progress_bar("tiles") as move:
                result = detect_in_tiles(
                    self._detector,
                    picture,
                    self._config,
                    batch_size=self._batch_size,
                    store=journal,
                    progress=move,
                    stop=lambda: bool(stop.number),
                )
            if result is None:
                return False
            typer.echo(f"{result.path}: {summary(result)}")
            if writes:
                annotated = _annotated(picture, result) if self._drawn else None
                self._folder.add(result, annotated, (picture.height, picture.width), tiled=True)
            done = True
            return True
        finally:
            if journal is not None:
                journal.close(done=done)

    def _opened(self, image: str | Path) -> Windows:
        sources = self._detector.sources
        if is_url(str(image)):
            return ArrayWindows(str(image), ImageSource(str(image), image).read(sources))
        return open_windows(image, exif=sources.exif)


def _annotated(picture: Windows, result: Detections) -> NDArray[np.uint8]:
    """The picture with its boxes, smaller if it is large."""
    pixels = picture.height * picture.width
    reduction = 1 << max(0, math.ceil(math.log(pixels / _DRAWN, 4)))
    small = picture.read(0, 0, picture.height, picture.width, reduction)
    boxes = result.boxes.numpy() / reduction
    return draw_named_boxes(small, boxes, result.scores.tolist(), result.labels.tolist(), result.class_names)
