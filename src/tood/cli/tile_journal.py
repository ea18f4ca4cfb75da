"""What was found on the tiles of one large picture so far, for `tood predict --resume`."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Container, Mapping, Sequence
from contextlib import suppress
from io import FileIO
from pathlib import Path
from typing import Any

import numpy as np

from tood.claimed_folder import append_line, not_writable
from tood.inference.tile_merging import TileBoxes
from tood.whole_file import whole_file

PREFIX = ".tood-predict.tiles-"
_VERSION = 1


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
        self.path, self._folder = folder / f"{PREFIX}{name}.jsonl", folder
        header = {"tood tiles": _VERSION, "source": source, "settings": dict(settings)}
        header = json.loads(json.dumps(header))
        self._known = _read(self.path, header) if resume else None
        if self._known is None:
            with whole_file(self.path) as temporary:
                temporary.write_text(json.dumps(header) + "\n", encoding="utf-8")
        lines, end = self._known or ([], None)
        self._lines = lines
        self._file: FileIO = self.path.open("r+b", buffering=0)
        if end is not None:
            self._file.truncate(end)

    def known(self) -> Sequence[TileBoxes]:
        """The results of the first batches."""
        return self._lines

    def add(self, found: TileBoxes) -> None:
        """Keeps the result of the next batch.

        Raises:
            ToodError: if it cannot be written.
        """
        line = {
            "b": found.boxes.tolist(),
            "v": found.scores.tolist(),
            "l": found.labels.tolist(),
            "c": found.cut.tolist(),
            "r": found.levels.tolist(),
        }
        try:
            append_line(self._file, line)
        except OSError as error:
            raise not_writable(self._folder, error) from error

    def close(self, *, done: bool) -> None:
        """Lets go of the file; removes it where the picture is done."""
        self._file.close()
        if done:
            with suppress(OSError):
                self.path.unlink()


def remove_done(folder: Path, done: Container[str]) -> None:
    """Removes what is left of pictures that are done: a run may be killed between a picture's result and that.

    Args:
        folder: that the results go to.
        done: paths of these pictures.
    """
    for path in folder.glob(f"{PREFIX}*.jsonl"):
        with suppress(OSError, ValueError, KeyError, TypeError):
            with path.open("rb") as file:
                header = json.loads(file.readline())
            if header["tood tiles"] == _VERSION and header["source"] in done:
                path.unlink()


def _read(path: Path, header: Mapping[str, Any]) -> tuple[list[TileBoxes], int] | None:
    """The whole lines of a journal and where they end; None if there is none under these settings."""
    found: list[TileBoxes] = []
    try:
        with path.open("rb") as file:
            first = file.readline()
            if json.loads(first) != header:
                return None
            end = len(first)
            for text in file:
                if not text.endswith(b"\n"):
                    break
                found.append(_boxes(json.loads(text)))
                end += len(text)
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return found, end


def _boxes(line: Mapping[str, Any]) -> TileBoxes:
    count = len(line["b"])
    return TileBoxes(
        np.array(line["b"], np.float32).reshape(count, 4),
        np.array(line["v"], np.float32),
        np.array(line["l"], np.int64),
        np.array(line["c"], np.bool_).reshape(count, 4),
        np.array(line["r"], np.int64),
    )
