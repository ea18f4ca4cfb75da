"""What training does to its images, as configuration: steps in their order, some of which end before the run does."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from types import MappingProxyType
from typing import Any, ClassVar, Literal, TypeAlias, TypeVar

from tood.data.transforms.ssd import largest_enlargement
from tood.errors import SettingError, ToodError
from tood.input import InputConfig


def _share(name: str, value: float) -> None:
    if not 0 <= value <= 1:
        raise SettingError(name, f"is {value}: give a number from 0 to 1")


@dataclass(frozen=True)
class FitStep:
    """Fits an image into the model's input as evaluation does; what an augmentation without any step of a size does.

    Attributes:
        size: (short, long) limits in pixels; null takes the model's.
        shortest: with it, the short limit is drawn for each image from `shortest`..short.
    """

    size: tuple[int, int] | None = None
    shortest: int | None = None
    kind: Literal["fit"] = "fit"

    def __post_init__(self) -> None:
        if self.size is not None and min(self.size) < 1:
            raise SettingError("fit.size", f"is {self.size}: give (short, long) in pixels, both at least 1")
        if self.shortest is not None and not 1 <= self.shortest <= (self.size or (self.shortest,))[0]:
            raise SettingError("fit.shortest", f"is {self.shortest}: give pixels, 1 to the short side of {self.size}")


@dataclass(frozen=True)
class CanvasStep:
    """Makes every image one of the same size: scaled at random about what just fits the canvas, cropped or padded.

    The canvas has the images' ratio where nearly all share one, else it is square.

    Attributes:
        side: longer side of the canvas in pixels; a multiple of the model's divisor wastes nothing.
        sides: where given, one of these is drawn for each batch instead.
        scale: smallest and largest random scale, 1 fits.
        min_visible: a box goes when less than this fraction of it is left.
        min_side: a box goes when less than this many pixels of a side are left.
        until: share of the run after which images just fit the canvas, and lie on it where the model's input has them.
    """

    side: int
    sides: tuple[int, ...] = ()
    scale: tuple[float, float] = (1.0, 1.0)
    min_visible: float = 0.3
    min_side: float = 2.0
    until: float = 1.0
    kind: Literal["canvas"] = "canvas"

    def __post_init__(self) -> None:
        _share("canvas.min_visible", self.min_visible)
        _share("canvas.until", self.until)
        if self.side < 1:
            raise SettingError("canvas.side", f"is {self.side}: give pixels, at least 1")
        if self.sides and min(self.sides) < 1:
            raise SettingError("canvas.sides", f"is {self.sides}: give sides in pixels, each at least 1")
        if not 0 < self.scale[0] <= self.scale[1]:
            raise SettingError("canvas.scale", f"is {self.scale}: give (smallest, largest), both above 0")


@dataclass(frozen=True)
class MosaicStep:
    """Joins four images on the canvas, in place of the one image that lies there otherwise.

    Attributes:
        probability: of a mosaic.
        until: share of the run after which there is none.
    """

    probability: float = 1.0
    until: float = 1.0
    kind: Literal["mosaic"] = "mosaic"

    def __post_init__(self) -> None:
        _share("mosaic.probability", self.probability)
        _share("mosaic.until", self.until)


@dataclass(frozen=True)
class MixUpStep:
    """Blends what lies on the canvas with another image, half and half; the objects of both are sought (YOLOX).

    Attributes:
        probability: of a second image.
        scale: smallest and largest random scale of that image, 1 fits the canvas.
        until: share of the run after which there is none.
    """

    probability: float = 1.0
    scale: tuple[float, float] = (0.8, 1.6)
    until: float = 1.0
    kind: Literal["mixup"] = "mixup"

    def __post_init__(self) -> None:
        _share("mixup.probability", self.probability)
        _share("mixup.until", self.until)
        if not 0 < self.scale[0] <= self.scale[1]:
            raise SettingError("mixup.scale", f"is {self.scale}: give (smallest, largest), both above 0")


@dataclass(frozen=True)
class FlipStep:
    """Mirrors; not where mirrored objects are other objects (digits, text, arrows).

    Attributes:
        horizontal: probability of a left-right mirror.
        vertical: probability of an upside-down mirror.
        until: share of the run after which there is none.
    """

    horizontal: float = 0.5
    vertical: float = 0.0
    until: float = 1.0
    kind: Literal["flip"] = "flip"

    def __post_init__(self) -> None:
        for name in ("horizontal", "vertical", "until"):
            _share(f"flip.{name}", getattr(self, name))


@dataclass(frozen=True)
class PhotometricStep:
    """Varies brightness, contrast, saturation and hue.

    Attributes:
        strength: 0 is none, 1 the usual.
        until: share of the run after which there is none.
    """

    strength: float = 1.0
    until: float = 1.0
    kind: Literal["photometric"] = "photometric"

    def __post_init__(self) -> None:
        _share("photometric.until", self.until)
        if self.strength < 0:
            raise SettingError("photometric.strength", f"is {self.strength}: give 0 for none, 1 for the usual")


@dataclass(frozen=True)
class DistortStep:
    """Varies brightness, contrast, saturation and hue, each with a probability of one half, in random order.

    Attributes:
        brightness, contrast, saturation: factors are drawn from 1 -/+ these.
        hue: largest turn, degrees.
        until: share of the run after which there is none.
    """

    brightness: float = 0.5
    contrast: float = 0.5
    saturation: float = 0.5
    hue: float = 18.0
    until: float = 1.0
    kind: Literal["distort"] = "distort"

    def __post_init__(self) -> None:
        for name in ("brightness", "contrast", "saturation", "until"):
            _share(f"distort.{name}", getattr(self, name))
        if self.hue < 0:
            raise SettingError("distort.hue", f"is {self.hue}: give degrees, 0 for none")


@dataclass(frozen=True)
class ExpandStep:
    """Lays an image on a larger canvas at a random place: its objects become smaller.

    Attributes:
        ratio: largest side of the canvas over the image's.
        probability: of doing so.
        fill: R, G, B on 0..255 of the canvas; the published one is the ImageNet mean without its fraction.
        until: share of the run after which it is not done.
    """

    ratio: float = 4.0
    probability: float = 0.5
    fill: tuple[int, int, int] = (123, 116, 103)
    until: float = 1.0
    kind: Literal["expand"] = "expand"

    def __post_init__(self) -> None:
        _share("expand.probability", self.probability)
        _share("expand.until", self.until)
        if not 1 <= self.ratio < float("inf"):
            raise SettingError("expand.ratio", f"is {self.ratio}: give a number of at least 1")
        if not all(0 <= value <= 255 for value in self.fill):
            raise SettingError("expand.fill", f"is {self.fill}: give three whole numbers from 0 to 255")


@dataclass(frozen=True)
class CropStep:
    """Cuts out a part that an object overlaps by at least a drawn IoU; objects whose centre is outside go.

    Attributes:
        thresholds: IoUs of which one is drawn, or none and nothing is cut.
        scale: smallest and largest side of a part over the image's, before the aspect.
        aspect: smallest and largest change of the image's aspect.
        until: share of the run after which nothing is cut.
    """

    thresholds: tuple[float, ...] = (0.0, 0.1, 0.3, 0.5, 0.7, 0.9)
    scale: tuple[float, float] = (0.3, 1.0)
    aspect: tuple[float, float] = (0.5, 2.0)
    until: float = 1.0
    kind: Literal["crop"] = "crop"

    def __post_init__(self) -> None:
        _share("crop.until", self.until)
        for threshold in self.thresholds:
            _share("crop.thresholds", threshold)
        if not 0 < self.scale[0] <= self.scale[1] <= 1:
            raise SettingError("crop.scale", f"is {self.scale}: give (smallest, largest), above 0, at most 1")
        if not 0 < self.aspect[0] <= 1 <= self.aspect[1]:
            raise SettingError("crop.aspect", f"is {self.aspect}: give (smallest, largest), around 1")


@dataclass(frozen=True)
class StretchStep:
    """Scales every image to a square, each axis for itself.

    Attributes:
        side: of the square in pixels; a multiple of the model's divisor wastes nothing.
        sides: where given, one of these is drawn for each batch instead.
        vary_interpolation: whether a batch's interpolation is drawn from five kinds; else it is the model's own.
    """

    side: int
    sides: tuple[int, ...] = ()
    vary_interpolation: bool = True
    kind: Literal["stretch"] = "stretch"

    def __post_init__(self) -> None:
        if min((self.side, *self.sides)) < 1:
            raise SettingError("stretch.side", f"and sides are {self.side}, {self.sides}: give pixels, each at least 1")


AugmentStep: TypeAlias = (
    FitStep
    | CanvasStep
    | StretchStep
    | MosaicStep
    | MixUpStep
    | FlipStep
    | PhotometricStep
    | DistortStep
    | ExpandStep
    | CropStep
)
"""What `augment.steps` is made of."""

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
