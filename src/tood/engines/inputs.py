"""What exported models want of a picture where that is not what their network wanted."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

from tood.errors import ToodError
from tood.input import Geometry, InputConfig, scaled_size


def _values(config: InputConfig) -> dict[str, Any]:
    return {field.name: getattr(config, field.name) for field in fields(InputConfig)}


@dataclass(frozen=True)
class WholeInput(InputConfig):
    """Pictures as they are: whatever is to be done to them, the exported model does itself."""

    @staticmethod
    def of(config: InputConfig) -> WholeInput:
        """For a model whose network has this configuration."""
        return WholeInput(**{**_values(config), "divisor": 1})

    def geometry(self, height: int, width: int) -> Geometry:
        """Where an image of so many pixels comes to lie: everywhere."""
        return Geometry((height, width), (height, width), canvas=(height, width))

    def largest_scale(self, height: int, width: int) -> float:
        """1: nothing is scaled."""
        return 1.0


@dataclass(frozen=True)
class FixedInput(InputConfig):
    """An input of one size, upright pictures too: a picture is fitted in and lies at the top left, or in the middle
    of a letterbox that wants it there.

    Attributes:
        height, width: of the input, pixels, whole divisors.
    """

    height: int = 640
    width: int = 640

    @staticmethod
    def of(config: InputConfig, height: int, width: int) -> FixedInput:
        """A configuration whose size is fixed.

        Raises:
            ToodError: if the sides are not whole divisors.
        """
        if min(height, width) < 1 or height % config.divisor or width % config.divisor:
            raise ToodError(f"size is {height} x {width}: give multiples of {config.divisor}, as this network needs")
        return FixedInput(**_values(config), height=height, width=width)

    def geometry(self, height: int, width: int) -> Geometry:
        """Where an image of so many pixels comes to lie."""
        canvas = (self.height, self.width)
        if self.fit == "stretch":
            return Geometry((height, width), canvas, canvas=canvas)
        scaled = scaled_size(height, width, self._scale(height, width))
        if self.fit == "keep_ratio":
            # The rest is padding, as beside a smaller picture of a batch.
            return Geometry((height, width), scaled, canvas=scaled)
        if self.letterbox == "corner":
            return Geometry((height, width), scaled, canvas=canvas)
        top, left = ((limit - side) // 2 for limit, side in zip(canvas, scaled, strict=True))
        return Geometry((height, width), scaled, (top, left), canvas)

    def largest_scale(self, height: int, width: int) -> float:
        """The factor of the axis that is scaled up most, or down least, of an image of so many pixels."""
        if self.fit == "stretch":
            return max(self.height / height, self.width / width)
        return self._scale(height, width)

    def padded(self, height: int, width: int) -> tuple[int, int]:
        """The fixed size, which holds any picture that was fitted in."""
        return self.height, self.width

    def _scale(self, height: int, width: int) -> float:
        return min(self.height / height, self.width / width)
