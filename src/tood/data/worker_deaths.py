"""Loading processes that are ended from outside: told in a sentence, where batches are waited for and nowhere else."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from types import FrameType, TracebackType
from typing import Any

from tood.data.loading import Batch
from tood.errors import ToodError

PYTORCH = "torch.utils.data._utils.signal_handling"
# A worker's batches come by a connection to it.
CONNECTION_LOST = (ConnectionError, EOFError)


class WorkerDiedError(ToodError):
    """A process that loads images was ended from outside; the message says what to do."""


class WorkerDeaths:
    """While it is entered, the death of a loading process is raised by `batches` alone.

    PyTorch raises it from its handler of SIGCHLD, wherever the main thread is: half-way through a step or a file, in
    the handling of another error, or in a `__del__`, which prints it and goes on. Here it is kept until the next
    batch is asked for; who waits for one already is told within five seconds, when PyTorch's loader looks.
    """

    def __init__(self) -> None:
        self._death: RuntimeError | None = None
        self._before: Callable[[int, FrameType | None], Any] | int | None = None

    def __enter__(self) -> WorkerDeaths:
        self._take_over()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._before is not None:
            signal.signal(signal.SIGCHLD, self._before)

    def batches(self, loader: Iterable[Batch]) -> Iterator[Batch]:
        """The loader's batches.

        Raises:
            WorkerDiedError: a process that loads for it, or for another loader here, has died.
            Exception: what loading an image raised.
        """
        iterator = iter(loader)
        while True:
            try:
                if self._death is not None:
                    raise self._death
                batch = next(iterator)
            except StopIteration:
                return
            except Exception as error:
                if isinstance(error, CONNECTION_LOST):
                    self._await_death()
                raise _told(self._death or error) from error
            self._take_over()
            yield batch

    def _await_death(self) -> None:
        """A process that is killed closes its connections before it is dead and its parent is told."""
        until = time.monotonic() + 1
        while self._death is None and time.monotonic() < until:
            time.sleep(0.01)

    def _take_over(self) -> None:
        """Takes the place of PyTorch's handler, which is there from the first loader on that has processes."""
        if threading.current_thread() is not threading.main_thread() or not hasattr(signal, "SIGCHLD"):
            return  # no handler runs here
        current = signal.getsignal(signal.SIGCHLD)
        # Not anyone else's: PyTorch's would call it, and this one PyTorch's.
        if getattr(current, "__module__", None) in (PYTORCH, __name__) and current != self._note:
            self._before = signal.signal(signal.SIGCHLD, self._note)

    def _note(self, number: int, frame: FrameType | None) -> None:
        assert callable(self._before)
        try:
            self._before(number, frame)
        except RuntimeError as error:
            self._death = error


def _told(error: Exception) -> Exception:
    told = str(error)
    lost = isinstance(error, RuntimeError) and "DataLoader worker (pid" in told
    if not lost and not isinstance(error, CONNECTION_LOST):
        return error
    why = "shared memory (/dev/shm) ran out" if "shared memory" in told else "memory that ran out is the usual cause"
    return WorkerDiedError(
        f"a process that loads images was ended from outside ({why}): set data.workers to 1 or 0, or data.cache=false, "
        "and go on from the last checkpoint"
    )
