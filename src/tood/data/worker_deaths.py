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
from tood.torch_errors import is_loading_process_death, is_out_of_shared_memory

# A worker's batches come by a connection to it; what a lost one raises.
CONNECTION_LOST = (ConnectionError, EOFError)


class WorkerDiedError(ToodError):
    """A process that loads images was ended from outside; the message says what to do."""


class WorkerDeaths:
    """While it is entered, in the main thread, the death of a loading process is raised by `batches` alone.

    PyTorch raises it from its handler of SIGCHLD, wherever the main thread is: half-way through a step or a file, in
    the handling of another error, or in a `__del__`, which prints it and goes on. Here it is kept until the next
    batch is asked for; who waits for one already is told within five seconds, when PyTorch's loader looks.

    Args:
        advice: what to do about it, as the end of the error's sentence.
    """

    def __init__(self, advice: str) -> None:
        self.advice = advice
        self._death: RuntimeError | None = None
        self._before: Callable[[int, FrameType | None], Any] | int | None = None

    def __enter__(self) -> WorkerDeaths:
        if threading.current_thread() is threading.main_thread() and hasattr(signal, "SIGCHLD"):
            # First: PyTorch would put it in this one's place when the first loader starts.
            _set_pytorch_s_handler()
            self._before = signal.signal(signal.SIGCHLD, self._note)
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
                if isinstance(error, (*CONNECTION_LOST, FileNotFoundError)):
                    self._await_death()
                cause = self._death or error
                if not (isinstance(cause, CONNECTION_LOST) or is_loading_process_death(cause)):
                    raise
                raise self._told(cause) from error
            yield batch

    def _await_death(self) -> None:
        """A process that is killed closes its connections before it is dead and its parent is told."""
        until = time.monotonic() + 1
        while self._death is None and time.monotonic() < until:
            time.sleep(0.01)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self._death = self._hear(number, frame) or self._death

    def _hear(self, number: int, frame: FrameType | None) -> RuntimeError | None:
        """The death that the handler before this one tells of."""
        outer = getattr(self._before, "__self__", None)
        if isinstance(outer, WorkerDeaths):
            outer._note(number, frame)
            return outer._death
        if callable(self._before):
            try:
                self._before(number, frame)
            except RuntimeError as error:
                return error.with_traceback(None)  # which would keep what was interrupted in memory
        return None

    def _told(self, cause: Exception) -> WorkerDiedError:
        sharing = is_out_of_shared_memory(cause)
        why = "shared memory (/dev/shm) ran out" if sharing else "memory that ran out is the usual cause"
        return WorkerDiedError(f"a process that loads images was ended from outside ({why}): {self.advice}")


def _set_pytorch_s_handler() -> None:
    try:
        from torch.utils.data._utils.signal_handling import _set_SIGCHLD_handler
    except ImportError:
        return  # deaths are then noticed by who waits
    _set_SIGCHLD_handler()
