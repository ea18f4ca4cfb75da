"""What training does to its images: the configuration, the published recipes, and the transforms they stand for."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from tood.data.transforms.colour import PhotometricJitter
from tood.data.transforms.geometry import MultiScaleResize, RandomFlip, Resize, ScaleJitter, fit_scale
from tood.data.transforms.mosaic import Mosaic
from tood.data.transforms.sample import Compose, OneOf, Sample, Transform
from tood.errors import ToodError


@dataclass(frozen=True)
class AugmentConfig:
    """How training images are resized and varied.

    Without `canvas` an image keeps its ratio and is fitted to `size`, as published detectors are trained. With
    `canvas` every image becomes one of that size: scaled at random about the scale that just fits, cropped or padded.
    The canvas has the images' ratio where nearly all share one, else it is square.

    Attributes:
        size: (short, long) side limits in pixels; not used with `canvas`.
        shortest: with it, the short side is drawn for each image from `shortest`..`size[0]`.
        flip: probability of a left-right mirror; 0 where mirrored objects are other objects (digits, text, arrows).
        vertical_flip: probability of an upside-down mirror.
        canvas: longer side in pixels of what all images become; a multiple of the model's divisor wastes nothing.
        canvases: with it, one of these sides is drawn for each batch instead of `canvas`.
        scale: smallest and largest random scale on the canvas, 1 fits.
        mosaic: probability of joining four images on one canvas.
        photometric: strength of brightness, contrast, saturation and hue jitter; 0 is none, 1 the usual.
        min_visible: on a canvas, a box goes when less than this fraction of it is left.
        min_side: on a canvas, a box goes when less than this many pixels of a side are left.
    """

    size: tuple[int, int] = (800, 1333)
    shortest: int | None = None
    flip: float = 0.5
    vertical_flip: float = 0.0
    canvas: int | None = None
    canvases: tuple[int, ...] = ()
    scale: tuple[float, float] = (1.0, 1.0)
    mosaic: float = 0.0
    photometric: float = 0.0
    min_visible: float = 0.3
    min_side: float = 2.0

    def __post_init__(self) -> None:
        for name in ("flip", "vertical_flip", "mosaic", "min_visible"):
            if not 0 <= getattr(self, name) <= 1:
                raise ToodError(f"augment.{name} is {getattr(self, name)}: give a number from 0 to 1")
        if min(self.size) < 1:
            raise ToodError(f"augment.size is {self.size}: give (short, long) in pixels, both at least 1")
        if self.shortest is not None and not 1 <= self.shortest <= self.size[0]:
            raise ToodError(f"augment.shortest is {self.shortest}: give pixels, 1 to the short side {self.size[0]}")
        if self.canvas is not None and self.canvas < 1:
            raise ToodError(f"augment.canvas is {self.canvas}: give a side in pixels, at least 1")
        if self.canvases and (self.canvas is None or min(self.canvases) < 1):
            raise ToodError(f"augment.canvases is {self.canvases}: give sides in pixels, and augment.canvas too")
        if not 0 < self.scale[0] <= self.scale[1]:
            raise ToodError(f"augment.scale is {self.scale}: give (smallest, largest), both above 0")
        if self.canvas is None and (self.scale != (1.0, 1.0) or self.mosaic > 0):
            raise ToodError("augment.scale and augment.mosaic need augment.canvas, the side of a square in pixels")
        if self.photometric < 0:
            raise ToodError(f"augment.photometric is {self.photometric}: give 0 for none, 1 for the usual strength")

    @property
    def keeps_ratio(self) -> bool:
        """Whether images differ in shape, so that batches want grouping by aspect ratio."""
        return self.canvas is None

    def largest_scale(self, height: int, width: int) -> float:
        """The largest factor by which an image of this size can be scaled."""
        if self.canvas is None:
            return fit_scale(height, width, *self.size)
        return max((self.canvas, *self.canvases)) / max(height, width) * self.scale[1]


def published_1x() -> AugmentConfig:
    """TOOD's "1x": fitted to 1333 x 800, mirrored half the time."""
    return AugmentConfig(size=(800, 1333), flip=0.5)


def published_2x() -> AugmentConfig:
    """TOOD's "2x" (MS train): short side from 480..800, long side at most 1333, mirrored half the time."""
    return AugmentConfig(size=(800, 1333), shortest=480, flip=0.5)


def small_model(
    side: int = 320, flip: float = 0.5, vertical_flip: float = 0.0, photometric: float = 0.5
) -> AugmentConfig:
    """For training a small model from scratch: a square canvas, scales 0.7..1.5, colours jittered."""
    return AugmentConfig(
        size=(side, side),
        canvas=side,
        scale=(0.7, 1.5),
        flip=flip,
        vertical_flip=vertical_flip,
        photometric=photometric,
    )


def canvas_shape(side: int, ratio: float, divisor: int) -> tuple[int, int]:
    """(height, width) of a canvas whose longer side is `side`; the other follows the ratio, up to a whole `divisor`.

    Args:
        side: pixels.
        ratio: width / height of the images.
        divisor: pixels that the shorter side is a multiple of, unless that exceeds `side`.
    """
    shorter = min(side, math.ceil(side * min(ratio, 1 / ratio) / divisor) * divisor)
    return (shorter, side) if ratio >= 1 else (side, shorter)


def build_transforms(
    config: AugmentConfig,
    canvas: tuple[int, int] | None = None,
    fetch: Callable[[np.random.Generator], Sample] | None = None,
) -> Compose:
    """The transforms that a configuration stands for.

    Args:
        config: what to do.
        canvas: (height, width) in pixels of this batch's canvas, instead of the configured square.
        fetch: draws another sample of the dataset; only the mosaic wants it.

    Raises:
        ValueError: if the mosaic is configured and `fetch` is missing.
    """
    if canvas is None and config.canvas is not None:
        canvas = (config.canvas, config.canvas)
    steps: list[Transform] = [_resizing(config, canvas, fetch)]
    if config.flip > 0 or config.vertical_flip > 0:
        steps.append(RandomFlip(config.flip, config.vertical_flip))
    if config.photometric > 0:
        steps.append(PhotometricJitter.of_strength(config.photometric))
    return Compose(tuple(steps))


def _resizing(
    config: AugmentConfig, canvas: tuple[int, int] | None, fetch: Callable[[np.random.Generator], Sample] | None
) -> Transform:
    if canvas is None:
        short, long = config.size
        return Resize(short, long) if config.shortest is None else MultiScaleResize(config.shortest, short, long)
    jitter = ScaleJitter(*canvas, config.scale, min_visible=config.min_visible, min_side=config.min_side)
    if config.mosaic == 0:
        return jitter
    if fetch is None:
        raise ValueError("a mosaic takes its other images from `fetch`: pass it")
    mosaic = Mosaic(*canvas, fetch, config.scale, min_visible=config.min_visible, min_side=config.min_side)
    return OneOf(config.mosaic, mosaic, jitter)
