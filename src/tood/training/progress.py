"""What a run shows of itself: a live line on a terminal, plain lines elsewhere."""

from __future__ import annotations

import errno
import io
import os
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType
from typing import IO

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn

# Seconds between two lines where output is no terminal.
PLAIN_INTERVAL = 15.0


@dataclass(frozen=True)
class Status:
    """Where a run stands.

    Attributes:
        epoch: the epoch under way, from 1.
        epochs: their number, None in a run limited by time.
        step: optimiser steps taken.
        progress: completed share of the run, 0..1.
        seconds_left: to the end, None when not known yet.
        losses: by name, recent means.
        lr: learning rate.
        images_per_second: recent speed.
        ap: of the last evaluation, 0..1, None before there was one.
    """

    epoch: int
    epochs: int | None
    step: int
    progress: float
    seconds_left: float | None
    losses: Mapping[str, float]
    lr: float
    images_per_second: float
    ap: float | None

    @property
    def line(self) -> str:
        """The whole status in one line of text."""
        epoch = f"{self.epoch}/{self.epochs}" if self.epochs is not None else str(self.epoch)
        losses = ", ".join(f"{name} {value:.3f}" for name, value in self.losses.items())
        parts = [
            f"epoch {epoch}",
            f"step {self.step}",
            f"loss {sum(self.losses.values()):.3f} ({losses})",
            f"AP {self.ap:.3f}" if self.ap is not None else "AP -",
            f"lr {self.lr:.2g}",
            f"{self.images_per_second:.1f} images/s",
            f"{duration(self.seconds_left)} left" if self.seconds_left is not None else "",
        ]
        return "  ".join(part for part in parts if part)


class Output(io.TextIOBase):
    """What a console writes to, for as long as anybody can read it; after that, text goes nowhere.

    Args:
        file: where to.

    Attributes:
        lost: 0, or the number of the signal that stands for what happened: SIGPIPE where the reader of a pipe has gone,
            SIGHUP where a terminal has.
    """

    def __init__(self, file: IO[str]) -> None:
        self.file, self.lost = file, 0

    def write(self, text: str) -> int:
        """Takes the text, whether or not it arrives."""
        self._try(lambda: self.file.write(text))
        return len(text)

    def flush(self) -> None:
        """Writes out what the file holds back."""
        self._try(self.file.flush)

    def isatty(self) -> bool:
        """Whether the underlying file is a terminal that somebody can still read."""
        return not self.lost and self.file.isatty()

    def fileno(self) -> int:
        """The number of the underlying open file, for the system."""
        return self.file.fileno()

    @property
    def encoding(self) -> str:  # type: ignore[override]
        """The encoding that the underlying file writes text in."""
        return getattr(self.file, "encoding", None) or "utf-8"

    def _try(self, act: Callable[[], object]) -> None:
        if self.lost:
            return
        try:
            act()
        except OSError as error:
            if error.errno in _GONE:
                self.lost = _GONE[error.errno]
                to_nowhere(self.file)


# By what an error of writing says, the signal that a program without Python would have got. A disk that is full, for
# one, is no such error: the text is lost, the run goes on.
_GONE = {errno.EPIPE: 13, errno.ECONNRESET: 13, errno.EIO: 1, errno.ENXIO: 1, errno.EBADF: 1}


def to_nowhere(file: IO[str]) -> None:
    """Lets what is written to standard output or error vanish from now on: Python would fail over it at its end."""
    with suppress(OSError, ValueError):
        if file.fileno() in (1, 2):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, file.fileno())
            os.close(nowhere)


class TrainingDisplay:
    """Shows a run; a context manager.

    Args:
        console: where to; None shows nothing (all processes but one).
    """

    def __init__(self, console: Console | None) -> None:
        self._console = console
        if console is not None and not isinstance(console.file, Output):
            console.file = Output(console.file)  # type: ignore[assignment]  # all of a file that a console asks for
        self._live: Progress | None = None
        self._task: TaskID | None = None
        self._next_plain = 0.0

    def __enter__(self) -> TrainingDisplay:
        if self._console is not None and self._console.is_terminal:
            columns = (
                BarColumn(bar_width=16),
                TextColumn("{task.percentage:>3.0f}%"),
                TextColumn("{task.description}"),
            )
            self._live = Progress(*columns, console=self._console, refresh_per_second=4)
            self._task = self._live.add_task("starting", total=1.0)
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None

    @property
    def lost(self) -> int:
        """0, or a signal's number where nobody can read it any more (see `Output`)."""
        file = None if self._console is None else self._console.file
        return file.lost if isinstance(file, Output) else 0

    def say(self, text: str) -> None:
        """Prints a line that stays on the screen."""
        if self._console is not None:
            self._console.print(text, markup=False, highlight=False, soft_wrap=True)

    def step(self, status: Status) -> None:
        """After a step: the live line changes; elsewhere a line is printed from time to time."""
        if self._live is not None and self._task is not None:
            self._live.update(self._task, completed=status.progress, description=status.line)
        elif time.monotonic() >= self._next_plain:
            self.say(f"{status.progress:4.0%}  {status.line}")
            self._next_plain = time.monotonic() + PLAIN_INTERVAL


def duration(seconds: float) -> str:
    """A length of time: 42 s, 3:07, 5:02:11, 2 d 03 h."""
    whole = max(round(seconds), 0)
    minutes, rest = divmod(whole, 60)
    hours, minutes = divmod(minutes, 60)
    days, hours_of_day = divmod(hours, 24)
    if days:
        return f"{days} d {hours_of_day:02d} h"
    if hours:
        return f"{hours}:{minutes:02d}:{rest:02d}"
    return f"{minutes}:{rest:02d}" if minutes else f"{rest} s"
