"""Pictures read by windows, so that no more of them is in memory than is looked at: in memory, turned, made smaller.

`tiff_windows` has those of TIFF files, `opening` knows which kind a file is.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from tood.data.images.orientation import INVERSE, turn_boxes, turned_size, upright


class Windows(Protocol):
    """A picture that is read by windows.

    Attributes:
        name: for messages.
        height, width: in pixels.
    """

    name: str
    height: int
    width: int

    def read(self, top: int, left: int, height: int, width: int, reduction: int = 1) -> NDArray[np.uint8]:
        """The pixels of a window as [h, w, 3] uint8 RGB.

        Args:
            top, left: of the window, in the picture's pixels.
            height, width: of the window, inside of the picture.
            reduction: its sides divided by this, rounded down; pixels are means.

        Raises:
            PictureError: if that part of the file is broken.
        """


class ArrayWindows:
    """A picture in memory, [H, W, 3] uint8 RGB."""

    def __init__(self, name: str, pixels: NDArray[np.uint8]) -> None:
        self.name, self._pixels = name, pixels
        self.height, self.width = pixels.shape[:2]

    def read(self, top: int, left: int, height: int, width: int, reduction: int = 1) -> NDArray[np.uint8]:
        """As of `Windows`."""
        return reduced(self._pixels[top : top + height, left : left + width], reduction)


class TurnedWindows:
    """A picture as an EXIF orientation of 2..8 turns it."""

    def __init__(self, stored: Windows, value: int) -> None:
        self.name, self._stored, self._value = stored.name, stored, value
        self.width, self.height = turned_size((stored.width, stored.height), value)

    def read(self, top: int, left: int, height: int, width: int, reduction: int = 1) -> NDArray[np.uint8]:
        """As of `Windows`."""
        # What a reduction leaves out lies right and below here, anywhere in the file.
        height, width = (side // reduction * reduction or side for side in (height, width))
        window = np.array([[left, top, left + width, top + height]], np.float32)
        there = turn_boxes(window, (self.width, self.height), INVERSE.get(self._value, self._value))
        x1, y1, x2, y2 = map(int, there[0])
        return upright(self._stored.read(y1, x1, y2 - y1, x2 - x1, reduction), self._value)


def reduced(pixels: NDArray[np.uint8], reduction: int) -> NDArray[np.uint8]:
    """[h, w, 3] at a whole part of its size, each pixel the mean of its square."""
    if reduction == 1:
        return np.ascontiguousarray(pixels)
    height, width = (max(1, side // reduction) for side in pixels.shape[:2])
    whole = np.ascontiguousarray(pixels[: height * reduction, : width * reduction])
    smaller: NDArray[np.uint8] = cv2.resize(whole, (width, height), interpolation=cv2.INTER_AREA)
    return smaller


def starts(length: int, size: int, overlap: int) -> Sequence[int]:
    """Where windows of a size begin along a side, so that each shares at least `overlap` with the next and the last
    ends where the side does."""
    if length <= size:
        return [0]
    count = -(-(length - overlap) // (size - overlap))
    return [round(number * (length - size) / (count - 1)) for number in range(count)]
