"""Decoded images kept in a folder: for datasets larger than the memory, read often enough to repay the writing."""

from __future__ import annotations

import hashlib
import logging
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tood.data.dataset import ImageRecord
from tood.data.image_cache import cached_shapes, fitted, pixel_bytes
from tood.data.reading import WHOLE, ImageReader
from tood.errors import ToodError
from tood.processes import speaks
from tood.whole_file import whole_file

log = logging.getLogger(__name__)

_SUFFIX = ".pixels.npy"
# Goes up when the same file and record give other pixels.
_PIXEL_RULES = 2
# Of a .npy file of 8-bit pixels, rounded up.
_HEADER_BYTES = 128
# What stays free on the disk, whatever the limit: checkpoints need it.
_LEFT_FREE = 0.1


class DiskCache:
    """Images of a dataset as raw uint8 files, each written when it is first read.

    A file's name holds its image's path, time of change and size, so a changed image is decoded anew. Files appear
    whole or not at all; where they cannot be written (a full disk), images are decoded each time and one log line says
    so. How much is kept is decided beforehand: the first images that fit the limit, whatever process asks first.

    Args:
        folder: where the files go; it is made. Several datasets may share it.
        images: the dataset's records.
        largest_scale: the largest factor by which training scales an image of this height and width. Where the images
            pass the limit as they are, they are kept shrunk to that.
        limit_bytes: the most that the folder may hold; the oldest files of other datasets go where need be.
        read: decodes an image.

    Raises:
        ToodError: if the folder cannot be made.
    """

    def __init__(
        self,
        folder: Path,
        images: Sequence[ImageRecord],
        largest_scale: Callable[[int, int], float],
        limit_bytes: int,
        read: ImageReader = WHOLE,
    ) -> None:
        self.folder, self.images, self.read = folder.expanduser().resolve(), images, read
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            there = {path.name: path.stat() for path in self.folder.glob(f"*{_SUFFIX}")}
            free = shutil.disk_usage(self.folder).free
        except OSError as error:
            raise ToodError(
                f"data.cache: {folder} cannot hold decoded images ({error.strerror}): name another folder"
            ) from None
        limit = min(limit_bytes, sum(file.st_size for file in there.values()) + int(free * (1 - _LEFT_FREE)))
        self.shapes = cached_shapes(images, largest_scale, limit, read)
        ends = np.cumsum([pixel_bytes(shape) + _HEADER_BYTES for shape in self.shapes])
        self.kept = int(np.searchsorted(ends, limit, side="right"))
        if self.kept < len(images) and speaks():
            log.warning(
                "%s holds the first %d of %d images within %.1f GB: the others are decoded each time",
                self.folder,
                self.kept,
                len(images),
                limit / 1e9,
            )
        self.writes = True
        own = {path.name for path in map(self._file, range(self.kept)) if path is not None}
        others = sorted((stat.st_mtime, name, stat.st_size) for name, stat in there.items() if name not in own)
        over = sum(size for _, _, size in others) + (int(ends[self.kept - 1]) if self.kept else 0) - limit
        for _, name, size in others:
            if over <= 0:
                break
            (self.folder / name).unlink(missing_ok=True)
            over -= size

    def __getitem__(self, index: int) -> NDArray[np.uint8]:
        """[H, W, 3] uint8 RGB.

        Raises:
            UnreadableImageError: it is missing or broken, or not of the size that its annotations say.
        """
        file = self._file(index) if index < self.kept else None
        if file is None:  # the image itself is missing, which reading says best
            return self.read(self.images[index])
        shape = (*self.shapes[index], 3)
        try:
            pixels: NDArray[np.uint8] = np.load(file, allow_pickle=False)
            if pixels.dtype == np.uint8 and pixels.shape == shape:
                return pixels
        except (OSError, ValueError, EOFError):
            pass  # not there yet, or cut by a crash of the machine: written anew
        pixels = fitted(self.read(self.images[index]), self.shapes[index])
        self._write(file, pixels)
        return pixels

    def _write(self, file: Path, pixels: NDArray[np.uint8]) -> None:
        if not self.writes:
            return
        try:
            with whole_file(file) as temporary:
                np.save(temporary, pixels)
        except ToodError as error:
            self.writes = False
            log.warning("%s; images are decoded each time from now on", error)

    def _file(self, index: int) -> Path | None:
        """Where an image is kept; None where its own file cannot be looked at."""
        image, (height, width) = self.images[index], self.shapes[index]
        try:
            stat = image.path.stat()
        except OSError:
            return None
        told = f"{image.path.absolute()}\n{stat.st_mtime_ns}\n{stat.st_size}\n{height}x{width}"
        told += f"\n{self.read.reduction(image)}\n{image.height}x{image.width}\n{_PIXEL_RULES}\n{image.turned}"
        return self.folder / f"{hashlib.sha256(told.encode('utf-8', 'surrogateescape')).hexdigest()[:32]}{_SUFFIX}"
