"""A wish to stop that comes at one place of a command, which runs in the tests' own process."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest


@contextmanager
def signal_at(holder: Any, name: str, number: int = signal.SIGTERM) -> Iterator[None]:
    """In here a call of `holder.name` gets a signal, and goes on for as long as that lets it.

    Where nobody takes it, as it is in a program that knows nothing of signals, the test fails.
    """

    def refuse(*_: object) -> None:
        raise AssertionError("the command does not take the signal")

    def wait(*_: object, **__: object) -> None:
        signal.raise_signal(number)
        time.sleep(30)
        raise AssertionError("nothing came of the signal")

    previous = signal.signal(number, refuse)
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(holder, name, wait)
            yield
    finally:
        signal.signal(number, previous)
