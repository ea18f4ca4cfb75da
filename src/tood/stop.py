"""Ctrl-C, SIGTERM and a closed terminal, taken as a wish to end the run well."""

from __future__ import annotations

import _thread
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, TypeVar

# Seconds. Ctrl-C reaches torchrun and its processes alike, and torchrun passes it on to them once more.
LAUNCHER_ECHO = 5.0
# A terminal that is closed sends it, and torchrun to its processes; Windows has no such signal.
HANG_UP: int | None = getattr(signal, "SIGHUP", None)
PATIENCE = 3.0
"""Seconds that a result which is under way gets after a wish to stop."""

T = TypeVar("T")


class StoppedError(KeyboardInterrupt):
    """A wish to stop was obeyed, with everything left in order; the message says how.

    Args:
        number: of the signal.
        told: what the person is told.
    """

    def __init__(self, number: int, told: str) -> None:
        super().__init__(told)
        self.number = number


class StopSignal:
    """Remembers SIGINT, SIGTERM or SIGHUP instead of dying of it, so that the step can end.

    The second one is obeyed at once, but for SIGHUP: a terminal and its shell both send it, and no person twice. Where
    it is ignored, as under `nohup`, it stays so.

    Args:
        echo: seconds within which a second one is still the first.

    Attributes:
        number: of the signal, 0 while there was none.
    """

    def __init__(self, echo: float = 0.0) -> None:
        self.number, self.echo, self._first = 0, echo, 0.0
        self._patience: float | None = None
        self._timer: threading.Timer | None = None
        self._impatient = False
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> StopSignal:
        if threading.current_thread() is threading.main_thread():
            numbers: list[int] = [signal.SIGINT, signal.SIGTERM]
            if HANG_UP is not None and signal.getsignal(HANG_UP) is not signal.SIG_IGN:
                numbers.append(HANG_UP)
            for number in numbers:
                self._previous[number] = signal.signal(number, self._remember)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def obey(self, told: str) -> None:
        """Raise a StoppedError that says `told`, if there was a signal."""
        if self.number:
            raise StoppedError(self.number, told)

    @contextmanager
    def waiting(self, seconds: float) -> Iterator[None]:
        """In here one signal is enough: KeyboardInterrupt is raised so many seconds after it, if this still lasts."""
        self._patience = seconds
        if self.number:
            self._lose_patience_later()
        try:
            yield
        finally:
            self._patience = None
            if self._timer is not None:
                self._timer.cancel()
                # One that goes off just now does so in here, and not when others listen to its signal again.
                self._timer.join()
                self._timer = None

    def next_of(self, results: Iterator[T]) -> T | None:
        """The next result; None after the last one, and where it does not come soon after the wish to stop."""
        try:
            with self.waiting(PATIENCE):
                return next(results, None)
        except KeyboardInterrupt:
            return None

    def _lose_patience_later(self) -> None:
        assert self._patience is not None
        self._timer = threading.Timer(self._patience, self._lose_patience)
        self._timer.daemon = True
        self._timer.start()

    def _remember(self, number: int, _frame: FrameType | None) -> None:
        now = time.monotonic()
        if self._impatient:
            self._impatient = False
            if self._patience is not None:
                raise KeyboardInterrupt
            return
        if not self.number or (self.number == HANG_UP and number != HANG_UP):
            self.number, self._first = number, now
            if self._patience is not None and self._timer is None:
                self._lose_patience_later()
        elif number != HANG_UP and now - self._first >= self.echo:
            raise KeyboardInterrupt

    def _lose_patience(self) -> None:
        self._impatient = True
        if hasattr(signal, "pthread_kill"):  # which ends a wait for another thread
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
        else:
            _thread.interrupt_main()


@contextmanager
def stopped_at_once(told: str) -> Iterator[None]:
    """In here a wish to stop is obeyed wherever the work is, for work of which nothing is kept before its end.

    What is under way is left as by Ctrl-C, so that it tidies up; signals that follow soon do not disturb that.

    Args:
        told: what the person is told.

    Raises:
        StoppedError: when all is tidied up.
    """
    with StopSignal(echo=PATIENCE) as stop:
        try:
            with stop.waiting(0.0):
                yield
        except BaseException:  # some libraries make errors of their own of it
            stop.obey(told)
            raise


@contextmanager
def handlers_kept() -> Iterator[None]:
    """In here a library may set a handler of its own for SIGTERM, which does not stay."""
    kept = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, kept)


@contextmanager
def stopped_after() -> Iterator[None]:
    """In here a wish to stop waits for the end, for what is short and must not be half done."""
    with StopSignal() as stop:
        yield
    if stop.number:
        signal.raise_signal(stop.number)
