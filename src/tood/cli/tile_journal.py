"""What was found on the tiles of one large picture so far, for `tood predict --resume`."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Container, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from tood.inference.tile_merging import TileBoxes
from tood.run_journal import RunJournal

PREFIX = ".tood-predict.tiles-"
_KIND, _VERSION = "tood tiles", 1


class TileJournal:
    """A file with a line for each batch of tiles, which is there until the picture is done.

    Args:
        folder: that the results go to.
        source: the picture's path.
        settings: whatever decides the results; what was kept under others is not used.
        resume: go on with what is there.

    Raises:
        ToodError: if the file cannot be written.
    """

    def __init__(self, folder: Path, source: str, settings: Mapping[str, Any], *, resume: bool) -> None:
        name = hashlib.sha256(source.encode(errors="surrogateescape")).hexdigest()[:16]
        self.path = folder / f"{PREFIX}{name}.jsonl"
        header = json.loads(json.dumps({_KIND: _VERSION, "source": source, "settings": dict(settings)}))
        known: list[TileBoxes] = []
        file = RunJournal.read(self.path, _KIND, _VERSION, lambda line: known.append(_boxes(line))) if resume else None
        if file is None or file.header != header:
            file, known = RunJournal.begin(self.path, header), []
        self._file, self._known = file, known
        self._file.open()

    def known(self) -> Sequence[TileBoxes]:
        """The results of the first batches."""
        return self._known

    def add(self, found: TileBoxes) -> None:
        """Keeps the result of the next batch.

        Raises:
            ToodError: if it cannot be written.
        """
        self._file.add(
            {
                "b": found.boxes.tolist(),
                "v": found.scores.tolist(),
                "l": found.labels.tolist(),
                "c": found.cut.tolist(),
                "r": found.levels.tolist(),
            }
        )

    def close(self, *, done: bool) -> None:
        """Lets go of the file; removes it where the picture is done."""
        if done:
            with suppress(OSError):
                self._file.remove()
        self._file.close()


def remove_done(folder: Path, done: Container[str]) -> None:
    """Removes what is left of pictures that are done: a run may be killed between a picture's result and that.

    Args:
        folder: that the results go to.
        done: paths of these pictures.
    """
    for path in folder.glob(f"{PREFIX}*.jsonl"):
        left = RunJournal.read(path, _KIND, _VERSION)
        if left is not None and left.header.get("source") in done:
            with suppress(OSError):
                path.unlink()


def _boxes(line: Mapping[str, Any]) -> TileBoxes:
    count = len(line["b"])
    return TileBoxes(
        np.array(line["b"], np.float32).reshape(count, 4),
        np.array(line["v"], np.float32),
        np.array(line["l"], np.int64),
        np.array(line["c"], np.bool_).reshape(count, 4),
        np.array(line["r"], np.int64),
    )
