"""What a network expects its input image to be."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from tood.errors import SettingError
from tood.input.geometry import Geometry

Fit = Literal["keep_ratio", "letterbox", "stretch"]
"""How an image comes into the limits of `InputConfig`: scaled to fit them, its ratio kept; that, and laid on
a canvas of just that size; or each side scaled to its limit.
"""


Interpolation = Literal["linear", "cubic"]
"""How pixels between pixels are computed when an image is scaled: from the 4 or the 16 nearest."""


@dataclass(frozen=True)
class InputConfig:
    """Size and colours of the input.

    Attributes:
        short, long: limits of an image's two sides in pixels, whichever of them is the longer.
        divisor: what the network sees is padded right and bottom to a multiple of this.
        mean, std: of the R, G, B channels, on 0..255; the ImageNet weights want these. Means of 0 and deviations of 255
            scale to 0..1.
        channels: order in which the network sees them; mean, std and pad are told as R, G, B all the same.
        fit: see `Fit`.
        letterbox: where a letterbox lays its image: in the "middle", or at the top left "corner".
        interpolation: see `Interpolation`.
        pad: R, G, B on 0..255 of all padding and of the canvases of training; null is the mean, 0 to the network.
    """

    short: int = 800
    long: int = 1333
    divisor: int = 32
    mean: tuple[float, float, float] = (123.675, 116.28, 103.53)
    std: tuple[float, float, float] = (58.395, 57.12, 57.375)
    channels: Literal["rgb", "bgr"] = "rgb"
    fit: Fit = "keep_ratio"
    letterbox: Literal["middle", "corner"] = "middle"
    pad: tuple[int, int, int] | None = None
    interpolation: Interpolation = "linear"

    def __post_init__(self) -> None:
        if not 1 <= self.short <= self.long:
            raise SettingError(
                "input.short", f"and input.long are {self.short} and {self.long}: give pixels, short first"
            )
        if self.divisor < 1:
            raise SettingError("input.divisor", f"is {self.divisor}: expected a whole number of at least 1")
        if not all(deviation > 0 for deviation in self.std):
            raise SettingError("input.std", f"is {self.std}: expected numbers above 0")
        if self.pad is not None and not all(0 <= value <= 255 for value in self.pad):
            raise SettingError("input.pad", f"is {self.pad}: expected three whole numbers from 0 to 255")

    @property
    def canvas_colour(self) -> tuple[int, int, int]:
        """`pad`, or the mean in whole numbers."""
        if self.pad is not None:
            return self.pad
        red, green, blue = (round(channel) for channel in self.mean)
        return red, green, blue

    @property
    def usual_long(self) -> float:
        """Longer side in pixels to which a picture of 4:3 is scaled: `long` where the short side allows it."""
        return self.long if self.fit == "stretch" else min(self.long, self.short * 4 / 3)

    def geometry(self, height: int, width: int) -> Geometry:
        """Where an image of so many pixels comes to lie."""
        limits = (self.short, self.long) if width >= height else (self.long, self.short)
        if self.fit == "stretch":
            return Geometry((height, width), limits, canvas=limits)
        scaled = scaled_size(height, width, fitting_scale(height, width, self.short, self.long))
        if self.fit == "keep_ratio":
            return Geometry((height, width), scaled, canvas=scaled)
        if self.letterbox == "corner":
            return Geometry((height, width), scaled, canvas=limits)
        top, left = ((limit - side) // 2 for limit, side in zip(limits, scaled, strict=True))
        return Geometry((height, width), scaled, (top, left), limits)

    def largest_scale(self, height: int, width: int) -> float:
        """The factor of the axis that is scaled up most, or down least, of an image of so many pixels."""
        if self.fit == "stretch":
            scaled = self.geometry(height, width).scaled
            return max(scaled[0] / height, scaled[1] / width)
        return fitting_scale(height, width, self.short, self.long)

    def padded(self, height: int, width: int) -> tuple[int, int]:
        """Height and width rounded up to whole divisors."""
        return -(-height // self.divisor) * self.divisor, -(-width // self.divisor) * self.divisor


def fitting_scale(height: int, width: int, short: int, long: int) -> float:
    """The factor that fits an image within `long` x `short`, whichever of its sides is the longer."""
    return min(long / max(height, width), short / min(height, width))


def scaled_size(height: int, width: int, scale: float) -> tuple[int, int]:
    """Height, width in whole pixels after scaling, rounded half up as the published recipes do; at least 1."""
    return max(1, int(height * scale + 0.5)), max(1, int(width * scale + 0.5))
