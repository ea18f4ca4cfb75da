"""What a run shows of itself: a live line on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from types import TracebackType

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
        """All of it in one line."""
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


class TrainingDisplay:
    """Shows a run; a context manager.

    Args:
        console: where to; None shows nothing (all processes but one).
    """

    def __init__(self, console: Console | None) -> None:
        self._console = console
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

    def say(self, text: str) -> None:
        """A line that stays."""
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
