"""The transforms of SSD (Liu et al. 2016) as PaddleDetection has them: distorted colours, expansion, sampled crops."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Literal, TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray

from tood.data.transforms.colour import colour_matrix
from tood.data.transforms.geometry import MEAN_COLOUR, place, scale_boxes, with_area
from tood.data.transforms.sample import Sample

StretchInterpolation: TypeAlias = Literal["nearest", "linear", "area", "cubic", "lanczos"]
"""How pixels are computed when an image is scaled."""

INTERPOLATIONS: tuple[StretchInterpolation, ...] = ("nearest", "linear", "area", "cubic", "lanczos")
_CODES: Mapping[StretchInterpolation, int] = MappingProxyType(
    {
        "nearest": cv2.INTER_NEAREST,
        "linear": cv2.INTER_LINEAR,
        "area": cv2.INTER_AREA,
        "cubic": cv2.INTER_CUBIC,
        "lanczos": cv2.INTER_LANCZOS4,
    }
)


@dataclass(frozen=True)
class Distort:
    """Brightness, contrast, saturation and hue, each with its probability, one after the other in random order.

    Attributes:
        brightness, contrast, saturation: factors are drawn from 1 -/+ these; contrast is about black, saturation about
            the pixel's own grey.
        hue: largest turn about the grey axis, degrees.
        probability: of each.
    """

    brightness: float = 0.5
    contrast: float = 0.5
    saturation: float = 0.5
    hue: float = 18.0
    probability: float = 0.5

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:
        order, used, drawn = rng.permutation(4), rng.random(4) < self.probability, rng.uniform(-1, 1, 4)
        image = sample.image
        matrices = (
            np.eye(3) * (1 + self.brightness * drawn[0]),
            np.eye(3) * (1 + self.contrast * drawn[1]),
            colour_matrix(0.0, 1.0, 1 + self.saturation * drawn[2], 0.0)[:, :3],
            colour_matrix(0.0, 1.0, 1.0, self.hue * drawn[3])[:, :3],
        )
        for kind in order:
            if used[kind]:  # each for itself: colours that leave 0..255 are cut there
                image = cv2.transform(image, matrices[kind])
        return sample if image is sample.image else replace(sample, image=image)


@dataclass(frozen=True)
class Expand:
    """Lays the image on a larger canvas, at a random place, so that its objects become smaller.

    Attributes:
        ratio: largest side of the canvas over the image's; it is drawn evenly from 1.
        probability: of doing so.
        fill: RGB colour of the canvas.
    """

    ratio: float = 4.0
    probability: float = 0.5
    fill: tuple[int, int, int] = MEAN_COLOUR

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:
        used, drawn, (down, right) = rng.random(), rng.random(), rng.random(2)
        ratio = 1 + (self.ratio - 1) * drawn
        height, width = int(sample.height * ratio), int(sample.width * ratio)
        if used >= self.probability or (height, width) == (sample.height, sample.width):
            return sample
        top, left = int((height - sample.height + 1) * down), int((width - sample.width + 1) * right)
        return place(sample, height, width, top, left, self.fill, 0.0, 0.0)


@dataclass(frozen=True)
class SampledCrop:
    """Cuts out a part that an object overlaps by at least a drawn IoU; now and then nothing is cut.

    The thresholds and "no cut" are tried in random order; of each threshold the first of `tries` random parts is taken
    that fits and holds the centre of an object. Objects whose centre is outside go.

    Attributes:
        thresholds: of the IoU of a part and the object that it overlaps most.
        scale: smallest and largest side of a part over the image's, before the aspect.
        aspect: smallest and largest width over height of a part, in the image's own.
        tries: for each threshold.
    """

    thresholds: tuple[float, ...] = (0.0, 0.1, 0.3, 0.5, 0.7, 0.9)
    scale: tuple[float, float] = (0.3, 1.0)
    aspect: tuple[float, float] = (0.5, 2.0)
    tries: int = 50

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:
        order = rng.permutation(len(self.thresholds) + 1)
        drawn = rng.random((len(self.thresholds), self.tries, 4))
        if not len(sample):
            return sample
        for kind in order:
            if kind == len(self.thresholds):
                return sample
            parts = self._parts(sample, drawn[kind])
            inside = _centres_inside(sample.boxes, parts)  # [T, G]
            fits = (_overlaps(sample.boxes, parts).max(axis=1) >= self.thresholds[kind]) & inside.any(axis=1)
            if fits.any():
                first = int(fits.argmax())
                return _cut(sample, parts[first], inside[first])
        return sample

    def _parts(self, sample: Sample, drawn: NDArray[np.float64]) -> NDArray[np.int64]:
        """[T, 4] x1 y1 x2 y2 of parts of the image, from numbers [T, 4] in 0..1."""
        low, high = self.scale
        scale = low + (high - low) * drawn[:, 0]
        # No part is larger than the image.
        narrow, wide = np.maximum(self.aspect[0], scale**2), np.minimum(self.aspect[1], scale**-2)
        root = np.sqrt(narrow + (wide - narrow) * drawn[:, 1])
        height = np.clip((sample.height * scale / root).astype(np.int64), 1, sample.height)
        width = np.clip((sample.width * scale * root).astype(np.int64), 1, sample.width)
        top = ((sample.height - height + 1) * drawn[:, 2]).astype(np.int64)
        left = ((sample.width - width + 1) * drawn[:, 3]).astype(np.int64)
        return np.stack([left, top, left + width, top + height], axis=1)


@dataclass(frozen=True)
class Stretch:
    """Scales each axis for itself to a square of `side` pixels, by the given interpolation."""

    side: int
    interpolation: StretchInterpolation = "cubic"

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:
        if (sample.height, sample.width) == (self.side, self.side):
            return sample
        image = cv2.resize(sample.image, (self.side, self.side), interpolation=_CODES[self.interpolation])
        boxes = scale_boxes(sample.boxes, self.side / sample.width, self.side / sample.height)
        return with_area(replace(sample, image=image, boxes=boxes))


def largest_enlargement(scale: tuple[float, float], aspect: tuple[float, float]) -> float:
    """By how much a crop's side can be shorter than the image's."""
    return math.sqrt(max(aspect[1], 1 / aspect[0])) / scale[0]


def _centres_inside(boxes: NDArray[np.float32], parts: NDArray[np.int64]) -> NDArray[np.bool_]:
    """[T, G] whether the centre of each of G boxes lies in each of T parts."""
    centres = (boxes[:, :2] + boxes[:, 2:]) / 2
    return np.asarray(((centres >= parts[:, None, :2]) & (centres < parts[:, None, 2:])).all(axis=2))


def _overlaps(boxes: NDArray[np.float32], parts: NDArray[np.int64]) -> NDArray[np.float64]:
    """[T, G] IoU of each of T parts and each of G boxes."""
    low, high = np.maximum(boxes[:, :2], parts[:, None, :2]), np.minimum(boxes[:, 2:], parts[:, None, 2:])
    common = np.clip(high - low, 0, None).prod(axis=2)
    areas = (boxes[:, 2:] - boxes[:, :2]).prod(axis=1)
    return np.asarray(common / (areas + (parts[:, 2:] - parts[:, :2]).prod(axis=1)[:, None] - common))


def _cut(sample: Sample, part: NDArray[np.int64], kept: NDArray[np.bool_]) -> Sample:
    """The part x1 y1 x2 y2 of the image with some of the boxes, cut at its border."""
    left, top, right, bottom = part.tolist()
    boxes = np.clip(sample.boxes[kept], part[[0, 1, 0, 1]], part[[2, 3, 2, 3]]) - part[[0, 1, 0, 1]]
    cut = Sample(
        np.ascontiguousarray(sample.image[top:bottom, left:right]),
        boxes.astype(np.float32),
        sample.labels[kept],
        sample.crowd[kept],
    )
    return with_area(cut)
