"""From the configuration of training's steps to the transforms they stand for."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from tood.data.transforms.augment import AugmentConfig
from tood.data.transforms.colour import PhotometricJitter
from tood.data.transforms.geometry import FitOnCanvas, MultiScaleResize, RandomFlip, Resize, ScaleJitter
from tood.data.transforms.mosaic import MixUp, Mosaic
from tood.data.transforms.sample import Compose, OneOf, Sample, Sometimes, Transform
from tood.data.transforms.ssd import INTERPOLATIONS, Distort, Expand, SampledCrop, Stretch
from tood.data.transforms.steps import (
    AugmentStep,
    CanvasStep,
    CropStep,
    DistortStep,
    ExpandStep,
    FitStep,
    FlipStep,
    MixUpStep,
    MosaicStep,
    PhotometricStep,
    StretchStep,
)
from tood.input import InputConfig

Fetch = Callable[[np.random.Generator], Sample]
"""Draws another sample of the dataset."""


def canvas_shape(side: int, ratio: float, divisor: int) -> tuple[int, int]:
    """(height, width) of a canvas whose longer side is `side`; the other follows the ratio, up to a whole `divisor`.

    Args:
        side: pixels.
        ratio: width / height of the images.
        divisor: pixels that the shorter side is a multiple of, unless that exceeds `side`.
    """
    shorter = min(side, math.ceil(side * min(ratio, 1 / ratio) / divisor) * divisor)
    return (shorter, side) if ratio >= 1 else (side, shorter)


@dataclass(frozen=True)
class Circumstances:
    """What the transforms of a batch depend on besides the configuration.

    Attributes:
        input: of the model: what images are fitted to, and the colour of what they leave free.
        canvas: (height, width) in pixels of this batch's canvas; None takes a square of the configured side.
        fetch: needed by a mosaic and by mixup alone.
        share: completed part of the run, 0 to 1.
        common: a number that all images of the batch have in common, by which they are treated alike.
    """

    input: InputConfig
    canvas: tuple[int, int] | None = None
    fetch: Fetch | None = None
    share: float = 0.0
    common: int = 0


def build_transforms(config: AugmentConfig, given: Circumstances) -> Compose:
    """The transforms that a configuration stands for.

    Raises:
        ValueError: if a mosaic or mixup is configured and `fetch` is missing.
    """
    transforms: list[Transform] = []
    if config.keeps_ratio and config.find(FitStep) is None:
        transforms.append(_fit(FitStep(), given))
    mosaic = config.find(MosaicStep)
    for step in config.steps:
        if not isinstance(step, MosaicStep):
            transforms += _of_step(step, mosaic, config.canvas, given)
    return Compose(tuple(transforms))


def _of_step(
    step: AugmentStep, mosaic: MosaicStep | None, canvas: CanvasStep | None, given: Circumstances
) -> list[Transform]:
    if isinstance(step, FitStep):
        return [_fit(step, given)]
    if isinstance(step, CanvasStep):
        return [_on_canvas(step, mosaic, given)]
    if isinstance(step, StretchStep):
        return [_stretched(step, given)]
    if _over(step.until, given):
        return []
    if isinstance(step, MixUpStep) and step.probability > 0:
        assert canvas is not None, "the configuration has seen to it"
        return [_mixed(step, canvas, given)]
    if isinstance(step, FlipStep) and (step.horizontal > 0 or step.vertical > 0):
        return [RandomFlip(step.horizontal, step.vertical)]
    if isinstance(step, PhotometricStep) and step.strength > 0:
        return [PhotometricJitter.of_strength(step.strength)]
    if isinstance(step, DistortStep):
        return [Distort(step.brightness, step.contrast, step.saturation, step.hue)]
    if isinstance(step, ExpandStep) and step.probability > 0:
        return [Expand(step.ratio, step.probability, step.fill)]
    if isinstance(step, CropStep):
        return [SampledCrop(step.thresholds, step.scale, step.aspect)]
    return []


def _fit(step: FitStep, given: Circumstances) -> Transform:
    short, long = step.size or (given.input.short, given.input.long)
    fit, colour = given.input.fit, given.input.canvas_colour
    if step.shortest is None:
        return Resize(short, long, fit, colour, given.input.interpolation)
    return MultiScaleResize(step.shortest, short, long, fit, colour, given.input.interpolation)


def _stretched(step: StretchStep, given: Circumstances) -> Transform:
    side = step.side if given.canvas is None else max(given.canvas)
    drawn = INTERPOLATIONS[given.common % len(INTERPOLATIONS)]
    return Stretch(side, drawn if step.vary_interpolation else given.input.interpolation)


def _on_canvas(step: CanvasStep, mosaic: MosaicStep | None, given: Circumstances) -> Transform:
    shape, colour = given.canvas or (step.side, step.side), given.input.canvas_colour
    ended = _over(step.until, given)
    scale = (1.0, 1.0) if ended else step.scale
    in_the_middle = given.input.fit == "letterbox" and given.input.letterbox == "middle"
    one: Transform = ScaleJitter(*shape, scale, colour, step.min_visible, step.min_side)
    if ended:
        one = FitOnCanvas(*shape, in_the_middle, colour)
    if mosaic is None or mosaic.probability == 0 or _over(mosaic.until, given):
        return one
    four = Mosaic(*shape, _others(given), scale, colour, step.min_visible, step.min_side)
    return OneOf(mosaic.probability, four, one)


def _mixed(step: MixUpStep, canvas: CanvasStep, given: Circumstances) -> Transform:
    shape, colour = given.canvas or (canvas.side, canvas.side), given.input.canvas_colour
    other = ScaleJitter(*shape, step.scale, colour, canvas.min_visible, canvas.min_side)
    return Sometimes(step.probability, MixUp(_others(given), other))


def _over(until: float, given: Circumstances) -> bool:
    """Whether a step that lasts until that share of the run is over; 1 is never over."""
    return given.share >= until and until < 1


def _others(given: Circumstances) -> Fetch:
    if given.fetch is None:
        raise ValueError("a mosaic and mixup take their other images from `fetch`: pass it")
    return given.fetch
