"""What a run has found so far, frame by frame, so that a killed one is gone on with where it was.

A folder beside the results holds it: the journal (a line of json a frame, written before the next is begun), parts of
the annotated video, and the lines of the tables, which are made anew by each run.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from io import FileIO
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from tood.claimed_folder import append_line, not_writable
from tood.errors import ToodError
from tood.video.frames import FailedFrame, Position
from tood.video.tracking import Seen
from tood.whole_file import remove_unfinished, whole_file

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
        settings: of the run.
        ends: bytes of the journal at the end of each kept line.
        good: which of these lines are frames that were read.
    """

    folder: Path
    settings: Mapping[str, Any]
    ends: list[int] = field(default_factory=list)
    good: list[bool] = field(default_factory=list)
    header: int = 0

    @staticmethod
    def read(folder: Path) -> Journal | None:
        """What is in a folder; None if it is not there or empty.

        Raises:
            ToodError: if something else is.
        """
        if not folder.is_dir() or folder.is_symlink() or not (folder / _JOURNAL).exists():
            if folder.is_symlink() or folder.is_file() or (folder.is_dir() and not _only_ours(folder)):
                raise ToodError(f"{folder} is none of tood video: move it away, or name another --out")
            return None
        try:
            with (folder / _JOURNAL).open("rb") as file:
                text = file.readline()
                header = json.loads(text)
                if header["tood video"] != _VERSION:
                    raise ValueError("another version")
                journal = Journal(folder, header["settings"], header=len(text))
                at = len(text)
                for text in file:
                    if not text.endswith(b"\n"):  # the disk was full, or the process killed
                        break
                    at += len(text)
                    journal.ends.append(at)
                    journal.good.append("e" not in json.loads(text))
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ToodError(f"{folder} is none of this version of tood video: move it away") from error
        return journal

    @staticmethod
    def begin(folder: Path, settings: Mapping[str, Any]) -> Journal:
        """A new one; what an earlier run has left there goes."""
        if folder.exists():
            _remove(folder)
        folder.mkdir(exist_ok=True)
        text = json.dumps({"tood video": _VERSION, "settings": dict(settings)}).encode() + b"\n"
        with whole_file(folder / _JOURNAL) as temporary:
            temporary.write_bytes(text)
        return Journal(folder, settings, header=len(text))

    @property
    def frames(self) -> int:
        """Number of frames that were read and are kept."""
        return sum(self.good)

    @property
    def is_empty(self) -> bool:
        """Whether the folder is there and nothing was found yet."""
        try:
            return (self.folder / _JOURNAL).stat().st_size <= self.header
        except OSError:
            return False

    def keep_batches(self, batch_size: int) -> None:
        """Forgets what does not fill a batch: it was computed otherwise than it will be."""
        left = self.frames % batch_size
        while self.ends and (left or not self.good[-1]):
            self.ends.pop()
            left -= self.good.pop()
        with (self.folder / _JOURNAL).open("r+b") as file:
            file.truncate(self.ends[-1] if self.ends else self.header)

    def known(self) -> Iterator[Known]:
        """What was kept, in order."""
        with (self.folder / _JOURNAL).open("rb") as file:
            file.seek(self.header)
            for _ in range(len(self.ends)):
                yield _parsed(json.loads(file.readline()))

    def frame(self, index: int) -> KnownFrame:
        """The frame of that number among those that were read."""
        line = [at for at, good in enumerate(self.good) if good][index]
        with (self.folder / _JOURNAL).open("rb") as file:
            file.seek(self.ends[line - 1] if line else self.header)
            found = _parsed(json.loads(file.readline()))
        assert isinstance(found, KnownFrame)
        return found

    def open(self) -> FileIO:
        """The journal, to be added to."""
        return (self.folder / _JOURNAL).open("r+b", buffering=0)

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


def add_line(file: FileIO, content: Mapping[str, Any], out: Path) -> None:
    """Adds a line.

    Raises:
        ToodError: if it cannot be written.
    """
    try:
        append_line(file, content)
    except OSError as error:
        raise not_writable(out, error) from error


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
