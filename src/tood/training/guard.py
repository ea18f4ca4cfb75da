"""The guard against losses and gradients that are no numbers: it names the images, and the weights stay untouched.

On a CPU each number is looked at as soon as it is there. An accelerator is given a step while it still computes the one
before, and must not wait to be asked: there the device itself leaves weights and averages as they are, and the numbers
are read a step later, before anything that they concern is saved.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from tood.data import Batch
from tood.errors import SharedError
from tood.processes import Processes

NotFinite = Literal["stop", "skip"]

# Steps in a row that may be skipped: more means that the weights themselves have gone.
MOST_SKIPPED = 10


class NotFiniteError(SharedError):
    """A step whose numbers are not finite; the weights are as they were before it."""


@dataclass(frozen=True)
class Looked:
    """Numbers of one step that were looked at.

    Attributes:
        what: they are, in words.
        images: paths of those that they come from.
        step: from 1.
        own: [K] values in this process.
        tolerated: whether the step is left out without a word where one is not finite.
    """

    what: str
    images: tuple[str, ...]
    step: int
    own: Tensor
    tolerated: bool

    def error(self, own: list[float], processes: Processes, remark: str = "") -> NotFiniteError:
        """What is wrong, with the values and images of all processes that have such numbers."""
        told = processes.gather((own, () if math.isfinite(sum(own)) else self.images))
        return NotFiniteError(
            f"{self.what}{remark} ({', '.join(str(value) for values, paths in told if paths for value in values)}) is "
            f"not finite at step {self.step}, on the images {', '.join(path for _, paths in told for path in paths)}: "
            "lower optimizer.lr, set clip_gradient (10 is usual), use precision=fp32, or not_finite=skip to pass over "
            "it"
        )


class FiniteGuard:
    """Looks at what steps compute; every process of the run must ask it the same at once.

    Args:
        processes: of the run: where one meets such a number, all raise.
        most_skipped: bad steps in a row that the run goes on after. The device then moves no weights any more, although
            it may have been given another step already.
        deferred: whether the numbers are read a step later.
    """

    def __init__(self, processes: Processes, most_skipped: int, deferred: bool) -> None:
        self.processes, self.most_skipped, self.deferred = processes, most_skipped, deferred
        self._bad_in_a_row: Tensor | None = None  # on the device

    def begin(self, step: int) -> StepCheck:
        """The check of a step, counted from 1."""
        return StepCheck(self, step)

    def skips(self, finite: Tensor) -> Tensor:
        """[] bool: whether a step must leave everything as it was: it is bad itself, or too many before it were.

        Args:
            finite: [] bool, of the step under way.
        """
        before = torch.zeros_like(finite, dtype=torch.int32) if self._bad_in_a_row is None else self._bad_in_a_row
        skips = ~finite | (before > self.most_skipped)
        self._bad_in_a_row = torch.where(skips, before + 1, 0)
        return skips


class StepCheck:
    """What one step computed and should be finite.

    Attributes:
        looked: in the order of the step.
    """

    def __init__(self, guard: FiniteGuard, step: int) -> None:
        self.guard, self.step = guard, step
        self.looked: list[Looked] = []
        self._means: list[list[float]] = []  # of what has been read
        self._sent: HostCopy | None = None

    def look(self, what: str, images: Sequence[Batch], *scalars: Tensor, tolerated: bool = False) -> int:
        """Takes scalars that are finite if all is well; waits for the device unless that is deferred.

        Args:
            what: they are, in words.
            images: batches that they come from.
            scalars: of this process.
            tolerated: whether it is no error where they are not, only a step to leave out.

        Returns:
            The place of their `means`.

        Raises:
            NotFiniteError: where one is not finite, in any process; if deferred, `read` does.
        """
        own = torch.stack([scalar.detach().float() for scalar in scalars])
        processes = self.guard.processes
        paths = tuple(info.path for batch in images for info in batch.infos)
        self.looked.append(Looked(what, paths, self.step, own, tolerated))
        if not self.guard.deferred:
            self._take(self.looked[-1], own, processes.mean(own).tolist(), processes)
        return len(self.looked) - 1

    def send(self) -> Tensor:
        """Begins to bring the numbers to the host.

        Returns:
            [] bool: whether the step must leave weights, averages and statistics as they are.
        """
        own = torch.cat([looked.own for looked in self.looked])
        means = self.guard.processes.mean(own)
        self._sent = HostCopy(torch.stack([own, means]))
        parts = torch.split(means.isfinite(), [len(looked.own) for looked in self.looked])
        required = [part for part, looked in zip(parts, self.looked, strict=True) if not looked.tolerated]
        tolerated = [part for part, looked in zip(parts, self.looked, strict=True) if looked.tolerated]
        skips = self.guard.skips(torch.cat(required).all())
        return skips | ~torch.cat(tolerated).all() if tolerated else skips

    def read(self, ask: bool = True) -> None:
        """Waits for the numbers that were sent, if they were.

        Args:
            ask: the other processes for their images.

        Raises:
            NotFiniteError: where one is not finite, in any process.
        """
        if self._sent is None:
            return
        own, means = self._sent.arrived().unbind()
        self._sent, start = None, 0
        for looked in self.looked:
            part = slice(start, start + len(looked.own))
            self._take(looked, own[part], means[part].tolist(), self.guard.processes if ask else Processes())
            start = part.stop

    def means(self, place: int) -> list[float]:
        """Over the processes, once they were read."""
        return self._means[place]

    @property
    def tolerated(self) -> bool:
        """Whether the step was left out for numbers for which that is no error, once they were read."""
        return any(
            looked.tolerated and not math.isfinite(sum(means))
            for looked, means in zip(self.looked, self._means, strict=True)
        )

    def _take(self, looked: Looked, own: Tensor, means: list[float], processes: Processes) -> None:
        self._means.append(means)
        if not looked.tolerated and not math.isfinite(sum(means)):
            raise looked.error(own.tolist(), processes)


class HostCopy:
    """Numbers on their way from a device, which goes on computing.

    Args:
        values: [R, K] on the device.
    """

    def __init__(self, values: Tensor) -> None:
        self._event: torch.Event | None = None
        if values.device.type in ("cuda", "xpu"):  # elsewhere the reader waits for all that the device was given
            values = values.to("cpu", non_blocking=True)  # into page-locked memory
            self._event = torch.Event(torch.accelerator.current_accelerator())
            self._event.record()
        self._values = values

    def arrived(self) -> Tensor:
        """The numbers, on the host; waits until they are there, not for what the device was given after them."""
        if self._event is not None:
            self._event.synchronize()
        return self._values.cpu()


def gradient_norm(parameters: Iterable[nn.Parameter]) -> Tensor:
    """Scalar: the L2 norm of all gradients together."""
    return torch.nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
