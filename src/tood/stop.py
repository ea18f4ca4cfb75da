"""Ctrl-C and SIGTERM, taken as a wish to end the run well."""

from __future__ import annotations

import signal
import threading
import time
from types import FrameType
from typing import Any

# Seconds. Ctrl-C reaches torchrun and its processes alike, and torchrun passes it on to them once more.
LAUNCHER_ECHO = 5.0


class StopSignal:
    """Remembers SIGINT or SIGTERM instead of dying of it, so that the step can end; the second one is obeyed at once.

    Args:
        echo: seconds within which a second one is still the first.

    Attributes:
        number: of the signal, 0 while there was none.
    """

    def __init__(self, echo: float = 0.0) -> None:
        self.number, self.echo, self._first = 0, echo, 0.0
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> StopSignal:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._previous[number] = signal.signal(number, self._remember)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _remember(self, number: int, _frame: FrameType | None) -> None:
        now = time.monotonic()
        if self.number and now - self._first >= self.echo:
            raise KeyboardInterrupt
        if not self.number:
            self.number, self._first = number, now
