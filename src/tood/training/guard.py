"""The guard against losses and gradients that are no numbers: it names the images, before the weights are touched."""

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
class FiniteGuard:
    """Looks at what a step computes; every process of the run must ask it the same at once.

    Attributes:
        processes: of the run: where one meets such a number, all raise.
    """

    processes: Processes

    def values(self, what: str, images: Sequence[Batch], step: int, *scalars: Tensor) -> list[float]:
        """The scalars' means over the processes; waits for the device.

        Args:
            what: they are, in words.
            images: batches that they come from.
            step: under way, from 1.
            scalars: finite if all is well.

        Raises:
            NotFiniteError: where one is not, in any process.
        """
        own = torch.stack([scalar.detach().float() for scalar in scalars])
        mean = own if self.processes.alone else self.processes.mean(own)
        numbers: list[float] = mean.tolist()
        if not math.isfinite(sum(numbers)):
            values = own.tolist()
            paths = [] if math.isfinite(sum(values)) else [info.path for batch in images for info in batch.infos]
            told = self.processes.gather((values, paths))
            raise NotFiniteError(
                f"{what} ({', '.join(str(value) for values, paths in told if paths for value in values)}) is not "
                f"finite at step {step}, on the images {', '.join(path for _, paths in told for path in paths)}: lower "
                "optimizer.lr, set clip_gradient (10 is usual), use precision=fp32, or not_finite=skip to pass over it"
            )
        return numbers


def gradient_norm(parameters: Iterable[nn.Parameter]) -> Tensor:
    """Scalar: the L2 norm of all gradients together."""
    return torch.nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
