"""Decoded images kept in memory, shared by all workers."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tood.data.dataset import ImageRecord, ImageRecords
from tood.data.images import reduced_shape
from tood.data.reading import WHOLE, ImageReader, UnreadableImageError
from tood.input import scaled_size
from tood.machine import usable_cores
from tood.processes import speaks

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
        unreadable: why there are no pixels of an image, by its index.
    """

    pixels: Tensor
    shapes: tuple[tuple[int, int], ...]
    offsets: tuple[int, ...]
    unreadable: Mapping[int, str] = field(default_factory=dict)

    def __getitem__(self, index: int) -> NDArray[np.uint8]:
        """[H, W, 3] uint8 RGB; a view, not to be written.

        Raises:
            UnreadableImageError: it could not be read.
        """
        if index in self.unreadable:
            raise UnreadableImageError(self.unreadable[index])
        return self._view(index)

    def _view(self, index: int) -> NDArray[np.uint8]:
        height, width = self.shapes[index]
        start = self.offsets[index]
        block: NDArray[np.uint8] = self.pixels[start : start + height * width * 3].numpy()
        return block.reshape(height, width, 3)

    def fill(self, images: Sequence[ImageRecord], read: ImageReader, keep_going: bool) -> ImageCache:
        """Decodes every image into the cache, and gives the cache back.

        Args:
            images: the dataset's records.
            read: decodes one.
            keep_going: note an image that cannot be read, instead of raising its UnreadableImageError.
        """

        def decode(index: int) -> str | None:
            try:
                self._view(index)[:] = fitted(read(images[index]), self.shapes[index])
            except UnreadableImageError as error:
                if not keep_going:
                    raise
                return str(error)
            return None

        # Decoding releases Python's lock, so threads are enough.
        with ThreadPoolExecutor(usable_cores()) as pool:
            sentences = list(pool.map(decode, range(len(images))))
        unreadable = {index: sentence for index, sentence in enumerate(sentences) if sentence is not None}
        return ImageCache(self.pixels, self.shapes, self.offsets, unreadable)


def build_cache(
    images: Sequence[ImageRecord],
    largest_scale: Callable[[int, int], float],
    limit_bytes: int,
    read: ImageReader = WHOLE,
    keep_going: bool = False,
) -> ImageCache | None:
    """Decode every image once, if they fit.

    Kept at full size where that fits; else shrunk to the largest size that training will ask for; else not kept.

    Args:
        images: the dataset's records.
        largest_scale: the largest factor by which training scales an image of this height and width.
        limit_bytes: the most memory to spend.
        read: decodes an image.
        keep_going: note images that cannot be read instead of raising; asking for one of them raises then.

    Returns:
        The cache, or None where even the shrunk images pass the limit; a log line says so.

    Raises:
        UnreadableImageError: an image is missing or broken, or not of the size that its annotations say.
    """
    shapes = cached_shapes(images, largest_scale, limit_bytes, read)
    needed = sum(map(pixel_bytes, shapes))
    if needed > limit_bytes:
        if speaks():
            log.warning(
                "%d decoded images would take %.1f GB, more than the limit of %.1f GB: they are read from disk each "
                "time",
                len(images),
                needed / 1e9,
                limit_bytes / 1e9,
            )
        return None
    offsets = np.concatenate([[0], np.cumsum([pixel_bytes(shape) for shape in shapes])]).astype(int).tolist()
    cache = ImageCache(torch.empty(offsets[-1], dtype=torch.uint8), tuple(shapes), tuple(offsets[:-1]))
    return cache.fill(images, read, keep_going)


def cached_shapes(
    images: Sequence[ImageRecord], largest_scale: Callable[[int, int], float], limit_bytes: int, read: ImageReader
) -> list[tuple[int, int]]:
    """(height, width) to keep each image at: as it is read, or, where all of them pass the limit, as small as does.

    Arguments as for `build_cache`.
    """
    shapes = [(height, width) for width, height in ImageRecords.of(images).sizes.tolist()]
    full = _shapes(shapes, lambda shape: reduced_shape(*shape, read.reduction_of(*shape)))
    if sum(map(pixel_bytes, full)) <= limit_bytes:
        return full
    return _shapes(shapes, lambda shape: scaled_size(*shape, min(1.0, largest_scale(*shape))))


def _shapes(
    shapes: Sequence[tuple[int, int]], kept: Callable[[tuple[int, int]], tuple[int, int]]
) -> list[tuple[int, int]]:
    """What becomes of each (height, width); equal ones are asked for once, and one object."""
    of = {shape: kept(shape) for shape in set(shapes)}
    return [of[shape] for shape in shapes]


def fitted(pixels: NDArray[np.uint8], shape: tuple[int, int]) -> NDArray[np.uint8]:
    """Pixels at the (height, width) that they are kept at, averaged where that is smaller."""
    if pixels.shape[:2] == shape:
        return pixels
    shrunk: NDArray[np.uint8] = cv2.resize(pixels, (shape[1], shape[0]), interpolation=cv2.INTER_AREA)
    return shrunk


def pixel_bytes(shape: tuple[int, int]) -> int:
    """Bytes that an image of (height, width) takes."""
    return shape[0] * shape[1] * 3
