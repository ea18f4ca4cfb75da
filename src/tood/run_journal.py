"""What a run has done so far, in lines of json, so that one that was killed is gone on with where it was."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable, Mapping, Sequence
from io import FileIO
from itertools import accumulate, takewhile
from pathlib import Path
from typing import Any

from tood.claimed_folder import not_writable
from tood.file_identity import is_open_as
from tood.whole_file import whole_file


class RunJournal:
    """A file that a run adds a line to for each part of its work that is done, and removes when all of it is.

    The first line says of which run it is: `{COMMAND: VERSION, "settings": ...}`, and what else identifies that. The
    file appears with it. Each further line is with the system before the run goes on, so that SIGKILL loses none (a
    power cut may); a last one that is not whole, as the process was killed or the disk full, counts for nothing. Only
    one process may write at a time: `claim` sees to that.

    Attributes:
        path: of the file.
        header: the first line.
        settings: in it, whatever decides the results.
    """

    def __init__(self, path: Path, header: Mapping[str, Any], header_bytes: int) -> None:
        self.path, self.header = path, header
        self.settings: Mapping[str, Any] = header["settings"]
        self._ends = [header_bytes]  # of the header, and of each line that was read
        self._file: FileIO | None = None

    @staticmethod
    def begin(path: Path, header: Mapping[str, Any]) -> RunJournal:
        """A new one, in the place of what has its name.

        Raises:
            ToodError: if it cannot be written.
        """
        text = _text(header)
        with whole_file(path) as temporary:
            temporary.write_bytes(text)
        return RunJournal(path, header, len(text))

    @staticmethod
    def read(path: Path, command: str, version: int, each: Callable[[Any], object] | None = None) -> RunJournal | None:
        """One that is there; None if there is none, or the file is something else or of another version.

        Args:
            path: of the file.
            command, version: that the header must have.
            each: given every line but the header; without it none is read. KeyError, TypeError and ValueError say
                that it is no line of this command's.
        """
        try:
            with path.open("rb") as file:
                whole = takewhile(lambda text: text.endswith(b"\n"), file)
                first = next(whole, b"")
                header = json.loads(first)
                if header[command] != version:
                    return None
                journal = RunJournal(path, header, len(first))
                if each is not None:
                    for text in whole:
                        each(json.loads(text))
                        journal._ends.append(journal._ends[-1] + len(text))
        except (OSError, ValueError, KeyError, TypeError):
            return None
        return journal

    @property
    def is_empty(self) -> bool:
        """Whether the file is there, and nothing in it but the header."""
        try:
            return self.path.stat().st_size <= self._ends[0]
        except OSError:
            return False

    def place(self, number: int) -> range:
        """Where in the file a line that was read is, in bytes."""
        return range(self._ends[number], self._ends[number + 1])

    def keep(self, numbers: Sequence[int]) -> None:
        """Forgets the other lines that were read, all at the same moment, however the process may end.

        Args:
            numbers: of the lines that stay, in order; from now on they are numbered as they follow each other.

        Raises:
            ToodError: if the file cannot be written; it is as it was.
        """
        places = [self.place(number) for number in numbers]
        if [place.start for place in places] != self._ends[: len(places)]:  # else `open` cuts off what follows them
            with whole_file(self.path) as temporary, self.path.open("rb") as old, temporary.open("wb") as new:
                for place in (range(self._ends[0]), *places):
                    old.seek(place.start)
                    new.write(old.read(len(place)))
        self._ends = list(accumulate(map(len, places), initial=self._ends[0]))

    # --- while the run goes on ---------------------------------------------------------------------------------------

    def open(self, count: int | None = None) -> None:
        """Opens the file to go on after the first `count` lines that were read, or all; what follows is cut off.

        Raises:
            ToodError: if it cannot be written.
        """
        if count is not None:
            del self._ends[count + 1 :]
        try:
            self._file = self.path.open("r+b", buffering=0)
            self._file.truncate(self._ends[-1])
        except OSError as error:
            raise not_writable(self.path.parent, error) from error

    def add(self, content: Mapping[str, Any]) -> range:
        """Adds a line; gives its place in bytes.

        Raises:
            ToodError: if it cannot be written whole; nothing is left of it.
        """
        assert self._file is not None
        text = _text(content)
        try:
            start = self._file.seek(0, os.SEEK_END)
            if self._file.write(text) < len(text):
                self._file.truncate(start)
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError as error:
            raise not_writable(self.path.parent, error) from error
        return range(start, start + len(text))

    def at(self, place: range) -> Any:
        """The line at a place."""
        assert self._file is not None
        self._file.seek(place.start)
        return json.loads(self._file.read(len(place)))

    def close(self) -> None:
        """Lets go of the file."""
        if self._file is not None:
            self._file.close()

    def remove(self) -> None:
        """Removes the file, which is open; where there are no locks it may be another run's by now, and stays."""
        assert self._file is not None
        own = is_open_as(self.path, self._file.fileno())
        self._file.close()  # Windows removes no open file
        if own:
            self.path.unlink()


def _text(content: Mapping[str, Any]) -> bytes:
    return json.dumps(content).encode() + b"\n"
