"""What some work costs, by counts that are the same on every machine, whatever its speed and whatever else it does."""

from __future__ import annotations

import sys
import tracemalloc
from collections.abc import Callable
from dataclasses import dataclass
from types import FrameType


@dataclass(frozen=True)
class Effort:
    """Calls of functions, of Python and of C, and bytes of memory at the most."""

    calls: int
    memory: int


def effort(work: Callable[[], object]) -> Effort:
    """Of work in this thread, done once before so that what is loaded and kept once is not counted."""
    work()
    calls = 0

    def count(_frame: FrameType, event: str, _argument: object) -> None:
        nonlocal calls
        calls += event in ("call", "c_call")

    before = sys.getprofile()
    tracemalloc.start()
    sys.setprofile(count)
    try:
        work()
    finally:
        sys.setprofile(before)
        memory = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    return Effort(calls, memory)
