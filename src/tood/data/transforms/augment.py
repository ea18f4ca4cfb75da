"""What training does to its images: steps in their order, and what was written before there were steps."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from types import MappingProxyType
from typing import Any, ClassVar, TypeVar

from tood.data.transforms.ssd import largest_enlargement
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
from tood.errors import SettingError, ToodError
from tood.input import InputConfig

StepT = TypeVar(
    "StepT",
    FitStep,
    CanvasStep,
    StretchStep,
    MosaicStep,
    MixUpStep,
    FlipStep,
    PhotometricStep,
    DistortStep,
    ExpandStep,
    CropStep,
)

# Where a step comes to stand that a setting adds.
_ORDER = (
    DistortStep,
    ExpandStep,
    CropStep,
    MosaicStep,
    FitStep,
    CanvasStep,
    StretchStep,
    MixUpStep,
    FlipStep,
    PhotometricStep,
)


@dataclass(frozen=True)
class AugmentConfig:
    """How training images are resized and varied.

    Attributes:
        steps: what is done, in this order. At most one decides the size (`fit`, `canvas` or `stretch`); without any,
            images are fitted into the model's input.
    """

    # Keys from before there were steps: their types, and what a value of theirs means.
    OLDER: ClassVar[Mapping[str, tuple[Any, Callable[[AugmentConfig, Any], AugmentConfig]]]]

    steps: tuple[AugmentStep, ...] = (FlipStep(),)

    def __post_init__(self) -> None:
        sizes = [step.kind for step in self.steps if isinstance(step, FitStep | CanvasStep | StretchStep)]
        if len(sizes) > 1:
            raise SettingError("augment.steps", f"has {' and '.join(sizes)}: one step decides the size of the images")
        for step in self.steps:
            if isinstance(step, MosaicStep | MixUpStep) and not self.find(CanvasStep):
                raise SettingError("augment.steps", f"has a {step.kind}, which needs a canvas: add a step of that kind")
        kinds = [type(step) for step in self.steps]
        if MixUpStep in kinds and kinds.index(MixUpStep) < kinds.index(CanvasStep):
            raise SettingError("augment.steps", "has a mixup before the canvas that it needs: put it behind")

    def find(self, kind: type[StepT]) -> StepT | None:
        """The first step of a kind, if there is one."""
        return next((step for step in self.steps if isinstance(step, kind)), None)

    def with_step(self, step: AugmentStep) -> AugmentConfig:
        """With this step instead of the one of its kind, or added where such a step usually stands."""
        if any(isinstance(old, type(step)) for old in self.steps):
            return replace(self, steps=tuple(step if isinstance(old, type(step)) else old for old in self.steps))
        steps = [*self.steps, step]
        return replace(self, steps=tuple(sorted(steps, key=lambda one: _ORDER.index(type(one)))))

    def without(self, *kinds: type[AugmentStep]) -> AugmentConfig:
        """Without the steps of these kinds."""
        return replace(self, steps=tuple(step for step in self.steps if not isinstance(step, kinds)))

    @property
    def canvas(self) -> CanvasStep | None:
        """The step that gives all images one size, if there is one."""
        return self.find(CanvasStep)

    @property
    def sides(self) -> tuple[int, ...]:
        """Longer sides in pixels of which one is drawn for each batch, if so."""
        step = self.canvas or self.find(StretchStep)
        return () if step is None else step.sides

    @property
    def keeps_ratio(self) -> bool:
        """Whether images differ in shape, so that batches want grouping by aspect ratio."""
        return self.canvas is None and self.find(StretchStep) is None

    def largest_scale(self, height: int, width: int, input: InputConfig) -> float:
        """The largest factor by which an axis of an image of this size can be scaled.

        Args:
            height, width: of the image in pixels.
            input: of the model.
        """
        crop = self.find(CropStep)
        enlarged = 1.0 if crop is None else largest_enlargement(crop.scale, crop.aspect)
        return enlarged * self._scale_of_whole(height, width, input)

    def _scale_of_whole(self, height: int, width: int, input: InputConfig) -> float:
        """The same of an image that nothing is cut from."""
        canvas, fit, stretch = self.canvas, self.find(FitStep), self.find(StretchStep)
        if stretch is not None:
            return max((stretch.side, *stretch.sides)) / min(height, width)
        if canvas is not None:
            mixup = self.find(MixUpStep)
            scale = max(canvas.scale[1], 0.0 if mixup is None else mixup.scale[1])
            return max((canvas.side, *canvas.sides)) / max(height, width) * scale
        if fit is not None and fit.size is not None:
            short, long = fit.size
            input = replace(input, short=min(short, long), long=long)
        return input.largest_scale(height, width)


def _sized(config: AugmentConfig, side: int | None) -> AugmentConfig:
    if side is None:
        return config.without(CanvasStep, MosaicStep, MixUpStep)
    old = config.canvas
    return config.without(FitStep, StretchStep).with_step(CanvasStep(side) if old is None else replace(old, side=side))


def _changed(kind: type[Any], name: str) -> Callable[[AugmentConfig, Any], AugmentConfig]:
    """What sets a field of the step of a kind, which is added if it has no fields that must be given."""

    def change(config: AugmentConfig, value: Any) -> AugmentConfig:
        step = config.find(kind)
        if step is not None:
            return config.with_step(replace(step, **{name: value}))
        default = next(field.default for field in fields(kind) if field.name == name)
        if kind is CanvasStep:
            if value == default:
                return config
            raise ToodError(f"canvas.{name} is {value}: it needs a canvas (augment.canvas, its side in pixels)")
        return config.with_step(kind(**{name: value}))

    return change


def _fitted(name: str) -> Callable[[AugmentConfig, Any], AugmentConfig]:
    change = _changed(FitStep, name)
    # It was of no use beside a canvas.
    return lambda config, value: config if config.canvas or value is None else change(config, value)


def _mosaic(config: AugmentConfig, probability: float) -> AugmentConfig:
    return config.with_step(MosaicStep(probability)) if probability else config.without(MosaicStep)


AugmentConfig.OLDER = MappingProxyType(
    {
        "canvas": (int | None, _sized),
        "size": (tuple[int, int], _fitted("size")),
        "shortest": (int | None, _fitted("shortest")),
        "canvases": (tuple[int, ...], _changed(CanvasStep, "sides")),
        "scale": (tuple[float, float], _changed(CanvasStep, "scale")),
        "min_visible": (float, _changed(CanvasStep, "min_visible")),
        "min_side": (float, _changed(CanvasStep, "min_side")),
        "mosaic": (float, _mosaic),
        "flip": (float, _changed(FlipStep, "horizontal")),
        "vertical_flip": (float, _changed(FlipStep, "vertical")),
        "photometric": (float, _changed(PhotometricStep, "strength")),
    }
)
