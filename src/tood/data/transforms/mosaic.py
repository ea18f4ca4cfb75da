"""Several images in one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import cv2
import numpy as np
from numpy.typing import NDArray

from tood.data.transforms.geometry import MEAN_COLOUR, place, random_offset, resize, with_area
from tood.data.transforms.sample import Sample, Transform, join
from tood.input import scaled_size


@dataclass(frozen=True)
class Mosaic:
    """Fill a canvas with four images that meet at a random point: more objects and context in each step.

    Attributes:
        height, width: of the canvas, pixels.
        fetch: gives another sample of the dataset, drawn with the generator it is passed.
        scale: smallest and largest factor for each image, where 1 would make it just fit the whole canvas.
        fill, min_visible, min_side: as in `ScaleJitter`.
    """

    height: int
    width: int
    fetch: Callable[[np.random.Generator], Sample]
    scale: tuple[float, float] = (0.5, 1.5)
    fill: tuple[int, int, int] = MEAN_COLOUR
    min_visible: float = 0.3
    min_side: float = 2.0

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:
        canvas = np.empty((self.height, self.width, 3), dtype=np.uint8)
        middle_y = int(self.height * rng.uniform(0.3, 0.7))
        middle_x = int(self.width * rng.uniform(0.3, 0.7))
        parts: list[Sample] = []
        for top, bottom in ((0, middle_y), (middle_y, self.height)):
            for left, right in ((0, middle_x), (middle_x, self.width)):
                part = self._tile(self.fetch(rng) if parts else sample, bottom - top, right - left, rng)
                canvas[top:bottom, left:right] = part.image
                parts.append(replace(part, boxes=part.boxes + np.array([left, top] * 2, dtype=np.float32)))
        return with_area(join(canvas, parts))

    def _tile(self, sample: Sample, height: int, width: int, rng: np.random.Generator) -> Sample:
        fit = min(self.height / sample.height, self.width / sample.width)
        factor = float(np.exp(rng.uniform(*np.log(self.scale))))
        sample = resize(sample, *scaled_size(sample.height, sample.width, fit * factor))
        top, left = random_offset(rng, sample.height, height), random_offset(rng, sample.width, width)
        return place(sample, height, width, top, left, self.fill, self.min_visible, self.min_side)


@dataclass(frozen=True)
class MixUp:
    """Blend an image with another one, half and half, and keep the objects of both (Zhang et al. 2018, as in YOLOX).

    Attributes:
        fetch: gives another sample of the dataset, drawn with the generator it is passed.
        lay: makes that sample one of this one's size.
    """

    fetch: Callable[[np.random.Generator], Sample]
    lay: Transform

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:
        other = self.lay(self.fetch(rng), rng)
        blended: NDArray[np.uint8] = cv2.addWeighted(sample.image, 0.5, other.image, 0.5, 0)
        return join(blended, [sample, other])
