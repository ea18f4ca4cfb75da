"""What every source of moving pictures gives: frames in order, with their times."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

TICKS = 90_000
"""Ticks a second, in which times are told: whole numbers of them for every usual frame rate."""

# Every so many rows and columns of a frame are looked at to know it again.
_SPARSE = 8


@dataclass(frozen=True)
class Position:
    """A frame that was read, by which it is found again.

    Attributes:
        number: of the frame in its source, from 0; frames that failed or were passed over have numbers, too.
        ticks: its time since the first frame, in 1/90000 s; rises from frame to frame.
        stamp: its own time stamp in the file, where it has one.
        start: the first frame's.
        check: a checksum of some of its pixels.
    """

    number: int
    ticks: int
    stamp: int | None = None
    start: int | None = None
    check: int = 0

    @property
    def time(self) -> float:
        """Seconds since the first frame."""
        return self.ticks / TICKS


@dataclass(frozen=True, eq=False)
class Frame:
    """One picture of a video.

    Attributes:
        position: where it stands.
        pixels: [H, W, 3] uint8 RGB, upright.
    """

    position: Position
    pixels: NDArray[np.uint8] = field(repr=False)


@dataclass(frozen=True)
class FailedFrame:
    """A frame that cannot be read.

    Attributes:
        number: of the frame, as of those that can.
        reason: in a sentence.
    """

    number: int
    reason: str


Item: TypeAlias = Frame | FailedFrame


class FrameSource(Protocol):
    """A video that may be read from its beginning or from a frame on.

    Attributes:
        name: path, address or number, for messages.
        live: whether it goes on as long as somebody looks, and what is not taken is gone.
        rate: frames a second, at least about.
        count: number of frames, if it is known, at least about.
    """

    name: str
    live: bool
    rate: float
    count: int | None

    def identity(self) -> object:
        """By what a changed source is known; plain values that json holds."""

    def frames(self, after: Position | None = None) -> Iterator[Item]:
        """The frames, in order; those after one that was read before, where that is given.

        Raises:
            ToodError: if it cannot be read at all, or is no longer what it was when `after` was read.
        """


def checksum(pixels: NDArray[np.uint8]) -> int:
    """Of some of a frame's pixels."""
    return zlib.crc32(pixels[::_SPARSE, ::_SPARSE].tobytes())


@dataclass
class Clock:
    """Gives frames times that rise, whatever their stamps say.

    Attributes:
        rate: frames a second where stamps lack.
        start: the first frame's stamp.
        ticks: of the last frame, None before the first.
    """

    rate: float
    start: int | None = None
    ticks: int | None = None

    def tell(self, stamp: int | None, unit: float) -> int:
        """The time of the next frame in ticks.

        Args:
            stamp: the frame's own, None if it has none.
            unit: seconds that a stamp counts in.
        """
        usual = 0 if self.ticks is None else self.ticks + max(1, round(TICKS / self.rate))
        if stamp is not None and self.start is None and self.ticks is None:
            self.start = stamp
        told = usual if stamp is None or self.start is None else round((stamp - self.start) * unit * TICKS)
        # A stamp that goes back, or a damaged one that leaps by hours, is none.
        leap = self.ticks is not None and not 0 < told - self.ticks <= _LONGEST_GAP * TICKS
        self.ticks = usual if leap else told
        if leap and stamp is not None:
            self.start = stamp - round(usual / (unit * TICKS))
        return self.ticks


# Seconds between two frames of a file.
_LONGEST_GAP = 600
