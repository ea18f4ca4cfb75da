"""Which images form which batch: decided by seed and epoch alone, so that any number of workers or processes agrees."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import Sampler

from tood.data.config import BatchPlan
from tood.errors import ToodError

# In place of an image's index: a blank, for a process that gets none of an epoch's last few images.
BLANK = -1


class SampleKey(NamedTuple):
    """What a worker is asked for. It carries the epoch because a persistent worker is told nothing else.

    Attributes:
        epoch: counts from 0.
        image: its index in the dataset, or `BLANK`.
        canvas: longer side in pixels of this batch's canvas, where the batch draws one.
        share: part of the run that was completed when the epoch began, 0 to 1: some augmentations end early.
        common: a number that all images of a step have in common, where batches draw their canvas.
    """

    epoch: int
    image: int
    canvas: int | None = None
    share: float = 0.0
    common: int = 0


class TrainBatchSampler(Sampler[list[SampleKey]]):
    """Shuffled batches; only the last ones of an epoch may be smaller.

    Images are drawn a step at a time, `batch_size * accumulation * processes` of them, and dealt out to the processes:
    the images of a step depend on their number alone, not on how many batches and processes share them. In the last,
    smaller step of an epoch each process gets as many batches as every other; one for which no image is left gets a
    blank, so that none waits for it.

    Call `set_epoch` before each epoch. Accelerate finds it.

    Args:
        count: number of images, n.
        plan: size of batches and steps; its seed and the epoch decide order and canvases.
        landscape: [n] bool for each image; steps hold images of one kind as far as the numbers allow, which
            spares padding. None draws steps from all images alike.
        canvases: where given, each step draws its canvas's longer side in pixels from these.
        processes, process: their number, and which of them this is, from 0.
    """

    def __init__(
        self,
        count: int,
        plan: BatchPlan,
        landscape: NDArray[np.bool_] | None = None,
        canvases: tuple[int, ...] = (),
        processes: int = 1,
        process: int = 0,
    ) -> None:
        if plan.size < 1:
            raise ToodError(f"batch size is {plan.size}: give at least 1")
        self.count, self.batch_size, self.seed = count, plan.size, plan.seed
        self.landscape, self.canvases = landscape, canvases
        self.accumulation, self.processes, self.process = plan.accumulation, processes, process
        self.step_size = plan.size * plan.accumulation * processes
        self.drop_last = plan.drop_last and count >= self.step_size
        self.epoch, self.share = 0, 0.0

    @property
    def sampler(self) -> TrainBatchSampler:
        """Itself: where Accelerate looks for `set_epoch`."""
        return self

    @property
    def digest(self) -> str:
        """A digest of all that decides which images make a step, but for the seed and the number of images in it."""
        kinds = b"" if self.landscape is None else np.packbits(self.landscape).tobytes()
        return hashlib.sha256(f"{self.count} {self.drop_last} ".encode() + kinds).hexdigest()

    def set_epoch(self, epoch: int) -> None:
        """The epoch, from 0, that the next iteration is for."""
        self.epoch = epoch

    def set_share(self, share: float) -> None:
        """The part of the run, 0 to 1, that is completed when the next iteration begins."""
        self.share = share

    def __len__(self) -> int:
        steps, rest = divmod(self.count, self.step_size)
        return steps * self.accumulation + (0 if self.drop_last else self._batches_of(rest))

    def __iter__(self) -> Iterator[list[SampleKey]]:
        rng = np.random.default_rng((self.seed, self.epoch))
        for number, images in enumerate(self._steps(rng.permutation(self.count), rng)):
            canvas, common = None, 0
            if self.canvases:
                draw = np.random.default_rng((self.seed, self.epoch, number, 1))
                canvas = self.canvases[int(draw.integers(len(self.canvases)))]
                common = int(draw.integers(1 << 31))
            for batch in self._own(images):
                yield [SampleKey(self.epoch, index, canvas, self.share, common) for index in batch]

    def _batches_of(self, images: int) -> int:
        """Batches that each process makes of a step's images."""
        return -(-images // (self.batch_size * self.processes))

    def _own(self, images: NDArray[np.int64]) -> list[list[int]]:
        """This process's batches of a step."""
        shares = np.array_split(images, self._batches_of(len(images)) * self.processes)
        return [[int(index) for index in share] or [BLANK] for share in shares[self.process :: self.processes]]

    def _steps(self, order: NDArray[np.int64], rng: np.random.Generator) -> list[NDArray[np.int64]]:
        size = self.step_size
        kinds = [order]
        if self.landscape is not None:
            wide = self.landscape[order]
            kinds = [order[wide], order[~wide]]
        full = [kind[i : i + size] for kind in kinds for i in range(0, len(kind) - size + 1, size)]
        rest = np.concatenate([kind[len(kind) // size * size :] for kind in kinds])
        last = [rest[i : i + size] for i in range(0, len(rest), size)]
        mixed = [full[i] for i in rng.permutation(len(full))]
        if self.drop_last:
            last = [step for step in last if len(step) == size]
        return mixed + last


class EvalBatchSampler(Sampler[list[SampleKey]]):
    """Every image once, in batches of one padded shape: no image is padded more than it would be alone.

    So what is found in an image does not depend on its neighbours, on the size of the batches or on the number of
    processes; each of those takes every so-manieth batch.

    Args:
        shapes: [n, 2] padded height, width in pixels of each image's input.
        batch_size: most images in a batch.
        processes, process: their number, and which of them this is, from 0.
    """

    def __init__(self, shapes: NDArray[np.int64], batch_size: int, processes: int = 1, process: int = 0) -> None:
        if batch_size < 1:
            raise ToodError(f"batch size is {batch_size}: give at least 1")
        self.batch_size, self.drop_last = batch_size, False
        kinds, kind = np.unique(shapes, axis=0, return_inverse=True)
        # The largest first: memory that does not suffice shows at once.
        largest_first = np.argsort(-kinds.prod(axis=1), kind="stable")
        groups = [np.flatnonzero(kind.ravel() == number) for number in largest_first]
        batches = [group[i : i + batch_size] for group in groups for i in range(0, len(group), batch_size)]
        self._own = [[int(index) for index in batch] for batch in batches[process::processes]]

    def __len__(self) -> int:
        return len(self._own)

    def __iter__(self) -> Iterator[list[SampleKey]]:
        for batch in self._own:
            yield [SampleKey(0, index) for index in batch]
