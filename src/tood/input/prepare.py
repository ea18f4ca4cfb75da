"""Pixels of an image as a network's input wants them, before they are numbers of its own."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

import cv2
import numpy as np
from numpy.typing import NDArray

from tood.input.config import InputConfig, Interpolation
from tood.input.geometry import Geometry

_CODES: Mapping[Interpolation, int] = MappingProxyType({"linear": cv2.INTER_LINEAR, "cubic": cv2.INTER_CUBIC})


def prepare(image: NDArray[np.uint8], config: InputConfig) -> tuple[NDArray[np.uint8], Geometry]:
    """An image [H, W, 3] scaled and laid on its canvas [h, w, 3], and where it lies there."""
    geometry = config.geometry(*image.shape[:2])
    return laid_out(image, geometry, config.canvas_colour, config.interpolation), geometry


def laid_out(
    image: NDArray[np.uint8],
    geometry: Geometry,
    colour: tuple[int, int, int],
    interpolation: Interpolation = "linear",
) -> NDArray[np.uint8]:
    """An image [H, W, 3] where `geometry` says, the rest of its canvas [h, w, 3] in a colour."""
    (height, width), (top, left) = geometry.scaled, geometry.offset
    if image.shape[:2] != (height, width):
        image = cv2.resize(image, (width, height), interpolation=_CODES[interpolation])
    if geometry.canvas == geometry.scaled:
        return image
    canvas: NDArray[np.uint8] = np.empty((*geometry.canvas, 3), np.uint8)
    canvas[:] = colour
    canvas[top : top + height, left : left + width] = image
    return canvas


def stacked(images: list[NDArray[np.uint8]], config: InputConfig) -> NDArray[np.uint8]:
    """Images [h, w, 3] of any sizes in one array [B, H, W, 3] of whole divisors, zeros right and below each."""
    height, width = config.padded(max(len(image) for image in images), max(image.shape[1] for image in images))
    batch = np.zeros((len(images), max(height, config.divisor), max(width, config.divisor), 3), np.uint8)
    for pixels, image in zip(batch, images, strict=True):
        pixels[: image.shape[0], : image.shape[1]] = image
    return batch
