"""What training may do to its images, as configuration: a step each, some of which end before the run does."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

from tood.errors import SettingError


def _wrong(name: str, problem: str) -> SettingError:
    """What is said of a step's field, by the key that sets it."""
    return SettingError(f"augment.steps.{name}", problem)


def _share(name: str, value: float) -> None:
    if not 0 <= value <= 1:
        raise _wrong(name, f"is {value}: give a number from 0 to 1")


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
            raise _wrong("fit.size", f"is {self.size}: give (short, long) in pixels, both at least 1")
        if self.shortest is not None and not 1 <= self.shortest <= (self.size or (self.shortest,))[0]:
            raise _wrong("fit.shortest", f"is {self.shortest}: give pixels, 1 to the short side of {self.size}")


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
            raise _wrong("canvas.side", f"is {self.side}: give pixels, at least 1")
        if self.sides and min(self.sides) < 1:
            raise _wrong("canvas.sides", f"is {self.sides}: give sides in pixels, each at least 1")
        if not 0 < self.scale[0] <= self.scale[1]:
            raise _wrong("canvas.scale", f"is {self.scale}: give (smallest, largest), both above 0")


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
            raise _wrong("mixup.scale", f"is {self.scale}: give (smallest, largest), both above 0")


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
            raise _wrong("photometric.strength", f"is {self.strength}: give 0 for none, 1 for the usual")


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
            raise _wrong("distort.hue", f"is {self.hue}: give degrees, 0 for none")


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
            raise _wrong("expand.ratio", f"is {self.ratio}: give a number of at least 1")
        if not all(0 <= value <= 255 for value in self.fill):
            raise _wrong("expand.fill", f"is {self.fill}: give three whole numbers from 0 to 255")


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
            raise _wrong("crop.scale", f"is {self.scale}: give (smallest, largest), above 0, at most 1")
        if not 0 < self.aspect[0] <= 1 <= self.aspect[1]:
            raise _wrong("crop.aspect", f"is {self.aspect}: give (smallest, largest), around 1")


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
            raise _wrong("stretch.side", f"and sides are {self.side}, {self.sides}: give pixels, each at least 1")


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
