"""What a transform takes and gives: one image with its ground truth."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Sample:
    """One image with its ground truth; transforms return a new one and never write into the old arrays.

    Attributes:
        image: [H, W, 3] uint8 RGB.
        boxes: [G, 4] float32, x1 y1 x2 y2 in pixels of `image`, edges at 0..W and 0..H.
        labels: [G] int64 class index.
        crowd: [G] bool, True where the box stands for a group.
    """

    image: NDArray[np.uint8]
    boxes: NDArray[np.float32]
    labels: NDArray[np.int64]
    crowd: NDArray[np.bool_]

    @property
    def height(self) -> int:
        return int(self.image.shape[0])

    @property
    def width(self) -> int:
        return int(self.image.shape[1])

    def __len__(self) -> int:
        return len(self.boxes)


Transform: TypeAlias = Callable[[Sample, np.random.Generator], Sample]


@dataclass(frozen=True)
class Compose:
    """Transforms one after the other, all drawing from the same random stream."""

    transforms: tuple[Transform, ...]

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:
        for transform in self.transforms:
            sample = transform(sample, rng)
        return sample


@dataclass(frozen=True)
class OneOf:
    """`first` with the given probability, else `second`."""

    probability: float
    first: Transform
    second: Transform

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:
        return (self.first if rng.random() < self.probability else self.second)(sample, rng)


@dataclass(frozen=True)
class Sometimes:
    """A transform with the given probability, else nothing."""

    probability: float
    transform: Transform

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:
        return self.transform(sample, rng) if rng.random() < self.probability else sample


def join(image: NDArray[np.uint8], parts: Sequence[Sample]) -> Sample:
    """One sample from the ground truth of several whose boxes are in pixels of `image` already."""
    return Sample(
        image,
        np.concatenate([part.boxes for part in parts]),
        np.concatenate([part.labels for part in parts]),
        np.concatenate([part.crowd for part in parts]),
    )
