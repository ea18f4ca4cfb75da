"""Transforms that move pixels, and the boxes with them.

Boxes are edges (0..W, 0..H), so a box over the whole image stays one under every transform here.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import cv2
import numpy as np
from numpy.typing import NDArray

from tood.data.transforms.sample import Sample
from tood.input import Fit, InputConfig, Interpolation, laid_out, scaled_size

# The ImageNet mean: zero once normalised, as the padding of a batch is.
MEAN_COLOUR = (124, 116, 104)


def resize(sample: Sample, height: int, width: int) -> Sample:
    """The sample at another size: bilinear, each axis of the boxes scaled by its own new / old.

    A box so thin that float32 leaves it no width or height at the new size is dropped.
    """
    if (height, width) == (sample.height, sample.width):
        return sample
    image: NDArray[np.uint8] = cv2.resize(sample.image, (width, height), interpolation=cv2.INTER_LINEAR)
    boxes = scale_boxes(sample.boxes, width / sample.width, height / sample.height)
    return with_area(replace(sample, image=image, boxes=boxes))


def scale_boxes(boxes: NDArray[np.float32], scale_x: float, scale_y: float) -> NDArray[np.float32]:
    """[G, 4] boxes with each axis scaled; in double precision, so that a box at the border stays inside."""
    return (boxes.astype(np.float64) * [scale_x, scale_y, scale_x, scale_y]).astype(np.float32)


def with_area(sample: Sample) -> Sample:
    """Without the boxes that have no width or height."""
    keep = (sample.boxes[:, 2:] > sample.boxes[:, :2]).all(axis=1)
    if keep.all():
        return sample
    return replace(sample, boxes=sample.boxes[keep], labels=sample.labels[keep], crowd=sample.crowd[keep])


def clip_boxes(sample: Sample, min_visible: float, min_side: float) -> Sample:
    """Boxes cut at the image's border; those of which too little is left are dropped.

    Args:
        sample: boxes may reach outside the image.
        min_visible: least fraction of a box's area that must lie inside.
        min_side: least width and height, in pixels, of what is left; a box of no width or height always goes.
    """
    limit = np.array([sample.width, sample.height] * 2, dtype=np.float32)
    boxes = np.clip(sample.boxes, 0, limit)
    sides, before = boxes[:, 2:] - boxes[:, :2], sample.boxes[:, 2:] - sample.boxes[:, :2]
    keep = (sides > 0).all(axis=1) & (sides >= min_side).all(axis=1)
    keep &= sides.prod(axis=1) >= min_visible * before.prod(axis=1)
    return replace(sample, boxes=boxes[keep], labels=sample.labels[keep], crowd=sample.crowd[keep])


def place(
    sample: Sample,
    height: int,
    width: int,
    top: int,
    left: int,
    fill: tuple[int, int, int],
    min_visible: float,
    min_side: float,
) -> Sample:
    """The sample laid on a canvas of `height` x `width` with its corner at (`top`, `left`), which may be negative.

    What reaches over the canvas is cut off, what it leaves free is filled.
    """
    y1, x1 = max(top, 0), max(left, 0)
    y2, x2 = min(top + sample.height, height), min(left + sample.width, width)
    if (y1, x1, y2, x2) == (0, 0, height, width):
        canvas = sample.image[-top : height - top, -left : width - left]
    else:
        canvas = np.empty((height, width, 3), dtype=np.uint8)
        canvas[:] = fill
        if y2 > y1 and x2 > x1:
            canvas[y1:y2, x1:x2] = sample.image[y1 - top : y2 - top, x1 - left : x2 - left]
    boxes = sample.boxes + np.array([left, top] * 2, dtype=np.float32)
    return clip_boxes(replace(sample, image=canvas, boxes=boxes), min_visible, min_side)


def random_offset(rng: np.random.Generator, side: int, canvas: int) -> int:
    """Where an image of `side` pixels starts on a canvas: anywhere inside, or, if it is the larger, covering it."""
    return int(rng.integers(min(0, canvas - side), max(0, canvas - side), endpoint=True))


@dataclass(frozen=True)
class Resize:
    """Scale to fit within `long` x `short` pixels, whichever side is the longer.

    Attributes:
        short, long: limits in pixels.
        fit: as in `InputConfig`, by default keeping the ratio.
        fill: RGB colour of what a letterbox leaves free.
        interpolation: as in `InputConfig`.
    """

    short: int
    long: int
    fit: Fit = "keep_ratio"
    fill: tuple[int, int, int] = MEAN_COLOUR
    interpolation: Interpolation = "linear"

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:
        limits = InputConfig(short=min(self.short, self.long), long=self.long, fit=self.fit)
        geometry = limits.geometry(sample.height, sample.width)
        if geometry.canvas == sample.image.shape[:2]:
            return sample
        image = laid_out(sample.image, geometry, self.fill, self.interpolation)
        return with_area(replace(sample, image=image, boxes=geometry.to_input(sample.boxes)))


@dataclass(frozen=True)
class MultiScaleResize:
    """`Resize` whose short side is drawn for each image from `shortest`..`short`, both included ("MS train")."""

    shortest: int
    short: int
    long: int
    fit: Fit = "keep_ratio"
    fill: tuple[int, int, int] = MEAN_COLOUR
    interpolation: Interpolation = "linear"

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:
        short = int(rng.integers(self.shortest, self.short, endpoint=True))
        return Resize(short, self.long, self.fit, self.fill, self.interpolation)(sample, rng)


@dataclass(frozen=True)
class RandomFlip:
    """Mirror left-right with probability `horizontal` and upside down with probability `vertical`."""

    horizontal: float = 0.5
    vertical: float = 0.0

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:
        mirrored, upended = rng.random(2) < (self.horizontal, self.vertical)
        if mirrored:
            sample = flip(sample, horizontal=True)
        return flip(sample, horizontal=False) if upended else sample


def flip(sample: Sample, horizontal: bool) -> Sample:
    """The mirrored sample: left-right if `horizontal`, else upside down; boxes are dropped as by `resize`."""
    image: NDArray[np.uint8] = cv2.flip(sample.image, 1 if horizontal else 0)
    low, high, side = (0, 2, sample.width) if horizontal else (1, 3, sample.height)
    boxes = sample.boxes.copy()
    boxes[:, low], boxes[:, high] = side - sample.boxes[:, high], side - sample.boxes[:, low]
    return with_area(replace(sample, image=image, boxes=boxes))


@dataclass(frozen=True)
class ScaleJitter:
    """Scale by a random factor and lay on a canvas of fixed size at a random place, cropping or padding.

    Attributes:
        height, width: of the canvas, pixels.
        scale: smallest and largest factor, where 1 makes the image just fit the canvas; log-uniform between.
        fill: RGB colour of what the image leaves free.
        min_visible: a box goes when less than this fraction of its area stays on the canvas.
        min_side: a box goes when a side of what stays is under this many pixels of the canvas.
    """

    height: int
    width: int
    scale: tuple[float, float] = (0.5, 1.5)
    fill: tuple[int, int, int] = MEAN_COLOUR
    min_visible: float = 0.3
    min_side: float = 2.0

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:
        fit = min(self.height / sample.height, self.width / sample.width)
        factor = float(np.exp(rng.uniform(*np.log(self.scale))))
        sample = resize(sample, *scaled_size(sample.height, sample.width, fit * factor))
        top = random_offset(rng, sample.height, self.height)
        left = random_offset(rng, sample.width, self.width)
        return place(sample, self.height, self.width, top, left, self.fill, self.min_visible, self.min_side)


@dataclass(frozen=True)
class FitOnCanvas:
    """Scale to just fit a canvas of fixed size, and lay on it as a letterbox does.

    Attributes:
        height, width: of the canvas, pixels.
        middle: whether the image lies in the middle, instead of at the top left.
        fill: RGB colour of what the image leaves free.
    """

    height: int
    width: int
    middle: bool = False
    fill: tuple[int, int, int] = MEAN_COLOUR

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:
        fit = min(self.height / sample.height, self.width / sample.width)
        sample = resize(sample, *scaled_size(sample.height, sample.width, fit))
        top, left = ((self.height - sample.height) // 2, (self.width - sample.width) // 2) if self.middle else (0, 0)
        return place(sample, self.height, self.width, top, left, self.fill, min_visible=0.0, min_side=0.0)
