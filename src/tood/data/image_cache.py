"""Decoded images kept in memory, shared by all workers."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tood.data.dataset import ImageRecord
from tood.data.images import read_image
from tood.data.transforms.geometry import resized_shape

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ImageCache:
    """All images of a dataset in one block of memory.

    Forked workers see the parent's block; where workers are spawned, PyTorch moves it to shared memory. Either way
    it exists once.

    Attributes:
        pixels: flat uint8, image after image, each [H, W, 3] RGB.
        shapes: (height, width) of each image as kept; smaller than the file's where it was shrunk to save memory.
        offsets: where each image starts in `pixels`.
    """

    pixels: Tensor
    shapes: tuple[tuple[int, int], ...]
    offsets: tuple[int, ...]

    def __getitem__(self, index: int) -> NDArray[np.uint8]:
        """[H, W, 3] uint8 RGB; a view, not to be written."""
        height, width = self.shapes[index]
        start = self.offsets[index]
        block: NDArray[np.uint8] = self.pixels[start : start + height * width * 3].numpy()
        return block.reshape(height, width, 3)


def build_cache(
    images: Sequence[ImageRecord], largest_scale: Callable[[int, int], float], limit_bytes: int
) -> ImageCache | None:
    """Decode every image once, if they fit.

    Kept at full size where that fits; else shrunk to the largest size that training will ask for; else not kept.

    Args:
        images: the dataset's records.
        largest_scale: the largest factor by which training scales an image of this height and width.
        limit_bytes: the most memory to spend.

    Returns:
        The cache, or None where even the shrunk images pass the limit; a log line says so.

    Raises:
        ToodError: an image is missing or broken, or not of the size that its annotations say.
    """
    full = [(image.height, image.width) for image in images]
    shrunk = [resized_shape(*shape, min(1.0, largest_scale(*shape))) for shape in full]
    shapes = full if _bytes(full) <= limit_bytes else shrunk
    if _bytes(shapes) > limit_bytes:
        log.warning(
            "%d decoded images would take %.1f GB, more than the limit of %.1f GB: they are read from disk each time",
            len(images),
            _bytes(shapes) / 1e9,
            limit_bytes / 1e9,
        )
        return None
    offsets = np.concatenate([[0], np.cumsum([height * width * 3 for height, width in shapes])]).astype(int).tolist()
    cache = ImageCache(torch.empty(offsets[-1], dtype=torch.uint8), tuple(shapes), tuple(offsets[:-1]))

    def decode(index: int) -> None:
        record, (height, width) = images[index], shapes[index]
        pixels = read_image(record.path, expected_size=(record.width, record.height))
        if (height, width) != pixels.shape[:2]:
            pixels = cv2.resize(pixels, (width, height), interpolation=cv2.INTER_AREA)
        cache[index][:] = pixels

    # Decoding releases Python's lock, so threads are enough.
    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        for _ in pool.map(decode, range(len(images))):
            pass
    return cache


def _bytes(shapes: Sequence[tuple[int, int]]) -> int:
    return sum(height * width * 3 for height, width in shapes)
