"""What a run has found so far, frame by frame, so that a killed one is gone on with where it was.

A folder beside the results holds it: the journal (a line of json a frame, written before the next is begun), parts of
the annotated video, and the lines of the tables, which are made anew by each run.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from tood.errors import ToodError
from tood.run_journal import RunJournal
from tood.video.frames import FailedFrame, Position
from tood.video.tracking import Seen
from tood.whole_file import remove_unfinished

COMMAND = "tood video"
SEGMENT = 120
"""Frames of a part of the annotated video: what a killed run has to draw again at most."""

_VERSION = 1
_JOURNAL, _SCRATCH, _WRITING = "journal.jsonl", "lines.jsonl", "writing"
_PART = re.compile(r"(\d{6})-(\d+)\.mp4")


@dataclass(frozen=True, eq=False)
class KnownFrame:
    """A frame of an earlier run of the same: its place, its (height, width), and what was found on it."""

    position: Position
    size: tuple[int, int]
    seen: Seen


Known: TypeAlias = "KnownFrame | FailedFrame"


@dataclass
class Journal:
    """The folder of a run that has not ended.

    Attributes:
        folder: the folder.
        file: the journal in it.
        good: which of the lines of an earlier run are frames that were read.
    """

    folder: Path
    file: RunJournal
    good: list[bool] = field(default_factory=list)

    @staticmethod
    def read(folder: Path) -> Journal | None:
        """What is in a folder; None if it is not there or empty.

        Raises:
            ToodError: if something else is.
        """
        if not folder.is_dir() or folder.is_symlink() or not (folder / _JOURNAL).exists():
            if folder.is_symlink() or folder.is_file() or (folder.is_dir() and not _only_ours(folder)):
                raise ToodError(f"{folder} is none of {COMMAND}: move it away, or name another --out")
            return None
        good: list[bool] = []
        file = RunJournal.read(folder / _JOURNAL, COMMAND, _VERSION, lambda line: good.append("e" not in line))
        if file is None:
            raise ToodError(f"{folder} is none of this version of {COMMAND}: move it away")
        return Journal(folder, file, good)

    @staticmethod
    def begin(folder: Path, settings: Mapping[str, Any]) -> Journal:
        """A new one; what an earlier run has left there goes."""
        if folder.exists():
            _remove(folder)
        folder.mkdir(exist_ok=True)
        return Journal(folder, RunJournal.begin(folder / _JOURNAL, {COMMAND: _VERSION, "settings": dict(settings)}))

    @property
    def frames(self) -> int:
        """Number of frames that were read and are kept."""
        return sum(self.good)

    def open(self, batch_size: int) -> None:
        """Opens it to go on. Forgets what does not fill a batch: it was computed otherwise than it will be."""
        left = self.frames % batch_size
        while self.good and (left or not self.good[-1]):
            left -= self.good.pop()
        self.file.open(len(self.good))

    def known(self) -> Iterator[Known]:
        """What was kept, in order."""
        for number in range(len(self.good)):
            yield self._line(number)

    def frame(self, index: int) -> KnownFrame:
        """The frame of that number among those that were read."""
        found = self._line([number for number, good in enumerate(self.good) if good][index])
        assert isinstance(found, KnownFrame)
        return found

    def _line(self, number: int) -> Known:
        return _parsed(self.file.at(self.file.place(number)))

    # --- other things in the folder --------------------------------------------------------------------------------

    @property
    def scratch(self) -> Path:
        """File of the tables' lines."""
        return self.folder / _SCRATCH

    @property
    def writing(self) -> bool:
        """Whether the results were being written, so that those which are listed nowhere are of this run."""
        return (self.folder / _WRITING).exists()

    def mark_writing(self, now: bool = True) -> None:
        """Says that they are, or no longer."""
        if now:
            (self.folder / _WRITING).touch()
        else:
            (self.folder / _WRITING).unlink(missing_ok=True)

    def part(self, number: int, frames: int) -> Path:
        """File of a part of the video."""
        return self.folder / f"{number:06d}-{frames}.mp4"

    def whole_parts(self) -> int:
        """Number of the parts that are there and full, from the first on; all others are removed."""
        remove_unfinished(self.folder)
        usable = self.frames // SEGMENT
        count = 0
        while count < usable and self.part(count, SEGMENT).exists():
            count += 1
        for path in list(self.folder.iterdir()):
            name = _PART.fullmatch(path.name)
            if name is not None and (int(name[1]) >= count or int(name[2]) != SEGMENT):
                path.unlink()
        return count

    def parts(self) -> list[Path]:
        """All parts, in order."""
        return sorted(path for path in self.folder.iterdir() if _PART.fullmatch(path.name))

    def remove(self) -> None:
        """Removes the folder."""
        self.file.close()
        _remove(self.folder)


def frame_line(position: Position, size: tuple[int, int], seen: Seen) -> dict[str, Any]:
    """A frame as the journal has it; numbers lose nothing."""
    return {
        "n": position.number,
        "t": position.ticks,
        "p": position.stamp,
        "o": position.start,
        "c": position.check,
        "s": list(size),
        "b": seen.boxes.tolist(),
        "v": seen.scores.tolist(),
        "l": seen.labels.tolist(),
    }


def failed_line(failed: FailedFrame) -> dict[str, Any]:
    """A frame that failed, as the journal has it."""
    return {"n": failed.number, "e": failed.reason}


def _parsed(line: Mapping[str, Any]) -> Known:
    if "e" in line:
        return FailedFrame(line["n"], line["e"])
    count = len(line["b"])
    seen = Seen(
        np.array(line["b"], np.float32).reshape(count, 4),
        np.array(line["v"], np.float32),
        np.array(line["l"], np.int64),
        np.full(count, -1, np.int64),
    )
    return KnownFrame(Position(line["n"], line["t"], line["p"], line["o"], line["c"]), tuple(line["s"]), seen)


def _only_ours(folder: Path) -> bool:
    """Whether nothing is in a folder but what a run has there; so it is when a run is killed as it begins or ends."""
    own = (_JOURNAL, _SCRATCH, _WRITING)
    return all(
        path.name in own or _PART.fullmatch(path.name) or path.name.startswith(".tood-") for path in folder.iterdir()
    )


def _remove(folder: Path) -> None:
    """Removes a run's folder, the journal last: what is left of it if that is cut short is known as such."""
    if not _only_ours(folder):
        raise ToodError(f"{folder} holds files of somebody else: move them away")
    for path in sorted(folder.iterdir(), key=lambda path: path.name == _JOURNAL):
        path.unlink()
    with suppress(OSError):
        folder.rmdir()
