"""What the processes of one run tell each other: those that torchrun or `accelerate launch` started."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor
from torch._C._distributed_c10d import PrefixStore, TCPStore

from tood.errors import SharedError, ToodError

T = TypeVar("T")


def speaks() -> bool:
    """Whether this process, of those that were launched together, is the one to say what all of them meet alike."""
    return os.environ.get("RANK", "0") == "0"


@dataclass(frozen=True)
class Processes:
    """The processes of a run, seen from one of them; alone by default. All of them call each method here at once.

    Attributes:
        count: how many processes the run has.
        rank: which of them this is, from 0, the main one: the one that writes and speaks.
    """

    count: int = 1
    rank: int = 0

    @property
    def alone(self) -> bool:
        """Whether this process is the only one of the run."""
        return self.count == 1

    @property
    def main(self) -> bool:
        """Whether this is the one that writes and speaks."""
        return self.rank == 0

    def gather(self, value: T) -> list[T]:
        """The values of all processes, in the order of their ranks."""
        if self.alone:
            return [value]
        values: list[T | None] = [None] * self.count
        dist.all_gather_object(values, value)
        return values  # type: ignore[return-value]  # all are filled

    def mean(self, values: Tensor) -> Tensor:
        """Element by element."""
        if self.alone:
            return values
        total = values.clone()
        dist.all_reduce(total)
        return total / self.count

    def largest(self, numbers: Sequence[float]) -> list[float]:
        """Element by element, of numbers that no device holds and none is waited for."""
        values = torch.tensor(numbers, dtype=torch.float64)
        if not self.alone:
            dist.all_reduce(values, dist.ReduceOp.MAX, self._hosts)
        return values.tolist()

    @cached_property
    def _hosts(self) -> dist.ProcessGroup | None:
        """The processes, by a way of speaking that passes the GPUs by; None where the usual one does."""
        return None if dist.get_backend() == "gloo" else dist.new_group(backend="gloo")

    def from_main(self, make: Callable[[], T]) -> T:
        """What the main process makes, for all; its error, if any, too.

        Raises:
            ToodError: what `make` raised.
        """
        made: list[T | None] = [None]
        with self.agreed():
            if self.main:
                made[0] = make()
        if not self.alone:
            dist.broadcast_object_list(made)
        return made[0]  # type: ignore[return-value]  # by now the main process's

    @contextmanager
    def agreed(self) -> Iterator[None]:
        """An error in one process becomes that of all, so that none waits for one that is gone.

        What stands inside must not wait for other processes.

        Raises:
            ToodError: the first process's that failed.
        """
        failure: Exception | None = None
        try:
            yield
        except Exception as error:
            failure = error
        self.raise_first(failure)

    def raise_first(self, failure: Exception | None) -> None:
        """Ends all processes with the error of the first one that has any; goes on where none has.

        Raises:
            ToodError: that error; in the process where it happened, if it is not meant for a person, the error itself.
        """
        if self.alone:
            if failure is not None:
                raise failure
            return
        told = None if failure is None else str(failure) if isinstance(failure, ToodError) else repr(failure)
        messages = [message for message in self.gather(told) if message is not None]
        if failure is not None and not isinstance(failure, ToodError):
            raise failure
        if messages:
            raise SharedError(messages[0]) from failure


@dataclass(frozen=True)
class Launch:
    """One start of torchrun, which may start its processes several times.

    Attributes:
        run: its `--rdzv-id`; `none` where none was given.
        host: name of this machine.
        folder: that this start of torchrun made for its logs here, as no other did.
        attempt: how often it has started its processes before.
    """

    run: str
    host: str
    folder: str
    attempt: int

    @staticmethod
    def of_this_process() -> Launch | None:
        """That which started this process, if any."""
        environment = os.environ
        if "TORCHELASTIC_RESTART_COUNT" not in environment:
            return None
        # FOLDER/attempt_0/0/error.json; none is told where the logs go to nowhere.
        told = environment.get("TORCHELASTIC_ERROR_FILE", "")
        folder = str(Path(told).parents[2]) if len(Path(told).parents) > 2 else ""
        run = environment.get("TORCHELASTIC_RUN_ID", "none")
        return Launch(run, socket.gethostname(), folder, int(environment["TORCHELASTIC_RESTART_COUNT"]))

    def is_same(self, other: Launch) -> bool:
        """Whether both are attempts of one start."""
        if self.host == other.host and (self.folder or other.folder):
            return (self.run, self.folder) == (other.run, other.folder)
        # The main process may move to another machine, where torchrun has another folder.
        return self.run == other.run != "none"


def join_restarted(on_cpu: bool) -> None:
    """Lets processes that torchrun has restarted find each other, before Accelerate does.

    PyTorch (2.13) keeps the store of the first attempt for the next ones, where each may read the addresses of
    processes that are gone, and then fails to connect or waits for ever. Keys of their own keep the attempts apart.

    Args:
        on_cpu: whether they compute on CPUs.
    """
    attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    if attempt == "0" or os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True" or dist.is_initialized():
        return
    rank, count = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    address, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    store = PrefixStore(f"tood/attempt {attempt}", TCPStore(address, port, is_master=False))
    dist.init_process_group("gloo" if on_cpu else "nccl", store=store, rank=rank, world_size=count)


def join_processes(device: torch.device) -> tuple[Processes, torch.device]:
    """The processes that were launched with this one, ready to speak to each other, and this one's device.

    Args:
        device: cpu, or cuda for each process a GPU of its own.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return Processes(), device
    from accelerate import PartialState

    join_restarted(device.type == "cpu")
    state = PartialState(cpu=device.type == "cpu")
    return Processes(state.num_processes, state.process_index), state.device


def leave_processes() -> None:
    """Ends what `join_processes`, or training, began; PyTorch asks for it at the end of a process."""
    if dist.is_available() and dist.is_initialized():
        dist.destroy_process_group()
