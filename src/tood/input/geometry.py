"""Where an image lies in a network's input, and boxes there and back."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Geometry:
    """An image scaled, each axis for itself, and laid on a canvas; sizes are (height, width), places (top, left).

    Attributes:
        image: size in the image's own pixels.
        scaled: its size in the input's pixels.
        offset: where its corner lies in the input.
        canvas: size of what belongs to this image in the input, the padding to whole divisors not among it.
    """

    image: tuple[int, int]
    scaled: tuple[int, int]
    offset: tuple[int, int] = (0, 0)
    canvas: tuple[int, int] = (0, 0)

    @property
    def scale(self) -> tuple[float, float]:
        """Input pixels an image pixel, (x, y)."""
        (height, width), (scaled_height, scaled_width) = self.image, self.scaled
        return scaled_width / max(width, 1), scaled_height / max(height, 1)

    def to_input(self, boxes: NDArray[np.float32]) -> NDArray[np.float32]:
        """Boxes [G, 4] x1 y1 x2 y2 in the image's pixels -> in the input's."""
        # In double precision, so that a box at the border stays inside.
        return (boxes.astype(np.float64) * (self.scale * 2) + (self.offset[::-1] * 2)).astype(np.float32)

    def to_image(self, boxes: NDArray[np.float32]) -> NDArray[np.float32]:
        """Boxes from the network's input back to the original image, the inverse of `to_input`."""
        return ((boxes.astype(np.float64) - (self.offset[::-1] * 2)) / (self.scale * 2)).astype(np.float32)
