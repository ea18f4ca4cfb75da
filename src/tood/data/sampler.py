"""Which images form which batch: decided by seed and epoch alone, so that any number of workers or processes agrees."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import Sampler

from tood.errors import ToodError


class SampleKey(NamedTuple):
    """What a worker is asked for. It carries the epoch because a persistent worker is told nothing else.

    Attributes:
        epoch: counts from 0.
        image: its index in the dataset.
        canvas: longer side in pixels of this batch's canvas, where the batch draws one.
    """

    epoch: int
    image: int
    canvas: int | None = None


class TrainBatchSampler(Sampler[list[SampleKey]]):
    """Shuffled batches; only the last one of an epoch may be smaller.

    Call `set_epoch` before each epoch. Accelerate finds it, also through the shards that it cuts for several processes.

    Args:
        landscape: [n] bool for each image; batches hold images of one kind as far as the numbers allow, which
            spares padding. None draws batches from all images alike.
        count: number of images, n.
        batch_size: images in a batch.
        seed: with the epoch, decides order and canvases.
        drop_last: leave out the smaller last batch, unless it is the only one.
        canvases: where given, each batch draws its canvas's longer side in pixels from these.
    """

    def __init__(
        self,
        count: int,
        batch_size: int,
        seed: int,
        landscape: NDArray[np.bool_] | None = None,
        drop_last: bool = False,
        canvases: tuple[int, ...] = (),
    ) -> None:
        if batch_size < 1:
            raise ToodError(f"batch size is {batch_size}: give at least 1")
        self.count, self.batch_size, self.seed = count, batch_size, seed
        self.landscape, self.canvases = landscape, canvases
        self.drop_last = drop_last and count >= batch_size
        self.epoch = 0

    @property
    def sampler(self) -> TrainBatchSampler:
        """Itself: where Accelerate looks for `set_epoch` once it has cut the batches into shards."""
        return self

    def set_epoch(self, epoch: int) -> None:
        """The epoch, from 0, that the next iteration is for."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self.count // self.batch_size if self.drop_last else -(-self.count // self.batch_size)

    def __iter__(self) -> Iterator[list[SampleKey]]:
        rng = np.random.default_rng((self.seed, self.epoch))
        batches = self._batches(rng.permutation(self.count), rng)
        for number, batch in enumerate(batches):
            canvas = None
            if self.canvases:
                draw = np.random.default_rng((self.seed, self.epoch, number, 1))
                canvas = self.canvases[int(draw.integers(len(self.canvases)))]
            yield [SampleKey(self.epoch, index, canvas) for index in batch]

    def _batches(self, order: NDArray[np.int64], rng: np.random.Generator) -> list[list[int]]:
        size = self.batch_size
        kinds = [order]
        if self.landscape is not None:
            wide = self.landscape[order]
            kinds = [order[wide], order[~wide]]
        full = [kind[i : i + size] for kind in kinds for i in range(0, len(kind) - size + 1, size)]
        rest = np.concatenate([kind[len(kind) // size * size :] for kind in kinds])
        last = [rest[i : i + size] for i in range(0, len(rest), size)]
        mixed = [full[i] for i in rng.permutation(len(full))]
        if self.drop_last:
            last = [batch for batch in last if len(batch) == size]
        return [[int(index) for index in batch] for batch in mixed + last]


class EvalBatchSampler(Sampler[list[SampleKey]]):
    """Every image once: landscape images in the dataset's order, then portrait ones, so that padding stays small."""

    def __init__(self, landscape: NDArray[np.bool_], batch_size: int) -> None:
        if batch_size < 1:
            raise ToodError(f"batch size is {batch_size}: give at least 1")
        self.batch_size, self.drop_last = batch_size, False
        self._order = [int(index) for index in np.argsort(~landscape, kind="stable")]

    def __len__(self) -> int:
        return -(-len(self._order) // self.batch_size)

    def __iter__(self) -> Iterator[list[SampleKey]]:
        for start in range(0, len(self._order), self.batch_size):
            yield [SampleKey(0, index) for index in self._order[start : start + self.batch_size]]
