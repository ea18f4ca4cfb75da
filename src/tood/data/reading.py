"""The pixels of a dataset's image, from its file, and what becomes of one that cannot be read."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray

from tood.data.dataset import ImageRecord, ImageRecords
from tood.data.images import decode_image
from tood.data.notes import PictureNotes
from tood.errors import ToodError
from tood.torch_errors import without_workers_traceback

log = logging.getLogger(__name__)

# What happens to a training image that cannot be read: the run ends with its name, or another takes its place.
Unreadable = Literal["stop", "skip"]

# By so much libjpeg can scale down while it decodes.
REDUCTIONS = (8, 4, 2)


class UnreadableImageError(ToodError):
    """An image of the dataset cannot be used; the message is the sentence alone, also out of a worker.

    DataLoader raises a worker's error anew with the worker's whole traceback as its message.
    """

    def __init__(self, message: str) -> None:
        super().__init__(without_workers_traceback(type(self), message))


@dataclass(frozen=True)
class ImageReader:
    """Decodes images.

    Attributes:
        largest_scale: where given, the largest factor by which an image of this height and width will be scaled; a
            JPEG that is wanted at half its size or less is then decoded at a half, quarter or eighth of it, never at
            less than what is wanted.
        notes: where given, what is found in decoding goes there.
    """

    largest_scale: Callable[[int, int], float] | None = None
    notes: PictureNotes | None = None

    def __call__(self, record: ImageRecord) -> NDArray[np.uint8]:
        """[H, W, 3] uint8 RGB.

        Raises:
            UnreadableImageError: it is missing or broken, or not of the size that its annotations say.
        """
        try:
            decoded = decode_image(
                record.path,
                exif=record.turned,
                expected_size=(record.width, record.height),
                reduction=self.reduction(record),
                whole=self.notes is not None and self.notes.is_whole(record),
            )
        except ToodError as error:
            raise UnreadableImageError(str(error)) from None
        if self.notes is not None:
            self.notes.add(record, decoded)
        return decoded.pixels

    def reduction(self, record: ImageRecord) -> int:
        """By how much a JPEG of this size is scaled down in decoding."""
        return self.reduction_of(record.height, record.width)

    def reduction_of(self, height: int, width: int) -> int:
        """As `reduction`, of a picture of so many pixels."""
        if self.largest_scale is None:
            return 1
        scale = self.largest_scale(height, width)
        return next((number for number in REDUCTIONS if scale * number <= 1), 1)


# Decodes every pixel that there is.
WHOLE = ImageReader()


class SkippedImages:
    """The images that were passed over because they cannot be read, known to all loading processes.

    Args:
        records: the dataset's; an image is told by its index.
        instead: what follows from it, for the log.
    """

    def __init__(self, records: Sequence[ImageRecord], instead: str = "skipped, other images take its place") -> None:
        self.records, self.instead = ImageRecords.of(records), instead
        # In shared memory: whichever process meets an image first says so, the others need not.
        self.flags = torch.zeros(len(records), dtype=torch.uint8)
        self.flags.share_memory_()  # type: ignore[no-untyped-call]

    def add(self, index: int, error: ToodError) -> None:
        """Counts an image, and says so in the log the first time."""
        if not self.flags[index]:
            self.flags[index] = 1
            log.warning("%s: %s", error, self.instead)

    def __contains__(self, index: int) -> bool:
        return bool(self.flags[index])

    @property
    def count(self) -> int:
        """How many images could not be read so far."""
        return int(self.flags.sum())

    @property
    def readable_ids(self) -> NDArray[np.int64]:
        """Ids of the images that could be read so far, in the order of the dataset."""
        return np.asarray(self.records.ids[self.flags.numpy() == 0])

    @property
    def paths(self) -> tuple[str, ...]:
        """The files that could not be read so far."""
        return tuple(str(self.records[index].path) for index in torch.nonzero(self.flags).ravel().tolist())
