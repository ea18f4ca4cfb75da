"""One image of a dataset at a time, as training and evaluation take it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import Dataset

from tood.data.dataset import ImageRecord
from tood.data.disk_cache import DiskCache
from tood.data.image_cache import ImageCache
from tood.data.images import reduced_shape
from tood.data.reading import WHOLE, ImageReader, SkippedImages, UnreadableImageError
from tood.data.sampler import BLANK, SampleKey
from tood.data.transforms.geometry import Resize, scale_boxes, with_area
from tood.data.transforms.pipeline import AugmentConfig, build_transforms, canvas_shape
from tood.data.transforms.sample import Compose, Sample, Transform

# So many images that cannot be read, drawn one after the other, are no accident.
_TRIES = 20


@dataclass(frozen=True)
class ImageInfo:
    """Where an input image came from.

    Attributes:
        id: the image's number in its dataset.
        path: its file.
        height, width: pixels of the stored image.
        scale_x, scale_y: input side / stored side. Boxes divided by them are in stored pixels, unless training
            cropped or moved the image.
    """

    id: int
    path: str
    height: int
    width: int
    scale_x: float
    scale_y: float


class TrainImages(Dataset[tuple[Sample, ImageInfo]]):
    """Augmented images: what a key gives depends on (seed, epoch, image) and the batch's canvas alone.

    Args:
        records: the images.
        augment: what becomes of them.
        seed: of all draws.
        divisor: a canvas's shorter side is a multiple of it.
        cache: where decoded images are kept, if anywhere.
        read: decodes an image that is not kept.
        skipped: where given, an image that cannot be read is counted there and another, drawn at random, takes its
            place; else it raises its UnreadableImageError.
    """

    def __init__(
        self,
        records: Sequence[ImageRecord],
        augment: AugmentConfig,
        seed: int,
        divisor: int,
        cache: ImageCache | DiskCache | None = None,
        read: ImageReader = WHOLE,
        skipped: SkippedImages | None = None,
    ) -> None:
        self.records, self.augment, self.seed, self.divisor = records, augment, seed, divisor
        self.cache, self.read, self.skipped = cache, read, skipped
        self.ratio = usual_ratio(records)

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, key: SampleKey) -> tuple[Sample, ImageInfo]:
        if key.image == BLANK:
            return _BLANK
        # A stream of its own: whether an image can be read does not change what is drawn for those that can.
        index, sample = self._readable(key.image, np.random.default_rng((self.seed, key.epoch, key.image, 1)))
        return transformed(self.records[index], sample, self.transforms(key), self.generator(key))

    def generator(self, key: SampleKey) -> np.random.Generator:
        """Where the draws for a key come from."""
        return np.random.default_rng((self.seed, key.epoch, key.image))

    def transforms(self, key: SampleKey) -> Compose:
        """What becomes of a key's image."""
        side = key.canvas or self.augment.canvas
        canvas = None if side is None else canvas_shape(side, self.ratio, self.divisor)
        return build_transforms(self.augment, canvas, self._fetch)

    def _fetch(self, rng: np.random.Generator) -> Sample:
        return self._readable(int(rng.integers(len(self.records))), rng)[1]

    def _readable(self, index: int, rng: np.random.Generator) -> tuple[int, Sample]:
        """That image with its index or, where it cannot be read and may be skipped, one drawn in its place."""
        if self.skipped is None:
            return index, self.sample(index)
        for _ in range(_TRIES):
            try:
                return index, self.sample(index)
            except UnreadableImageError as error:
                self.skipped.add(index, error)
                last = error
            index = int(rng.integers(len(self.records)))
        raise UnreadableImageError(f"{last} (and so with {_TRIES - 1} others drawn in its place: is the disk there?)")

    def sample(self, index: int) -> Sample:
        """An image with its ground truth before any transform.

        Raises:
            UnreadableImageError: it is missing or broken, or not of the size that its annotations say.
        """
        record = self.records[index]
        pixels = self.read(record) if self.cache is None else self.cache[index]
        return with_area(Sample(pixels, self.boxes_on(pixels, record), record.labels, record.crowd))

    def boxes_on(self, pixels: NDArray[np.uint8], record: ImageRecord) -> NDArray[np.float32]:
        """[G, 4] an image's boxes on its pixels as they were decoded or kept."""
        height, width = pixels.shape[:2]
        if (height, width) == (record.height, record.width):
            return record.boxes
        scale_x, scale_y = width / record.width, height / record.height
        reduction = self.read.reduction(record)
        if reduction > 1 and (height, width) == reduced_shape(record.height, record.width, reduction):
            # The last row and column stand for a square of pixels that may reach beyond the image.
            scale_x = scale_y = 1 / reduction
        return scale_boxes(record.boxes, scale_x, scale_y)


class EvalImages(Dataset[tuple[Sample, ImageInfo]]):
    """Images resized to fit within (short, long), nothing else.

    Args:
        records: the images.
        size: (short, long) limits in pixels.
        read: decodes them.
        skipped: where given, an image that cannot be read is counted there and a blank takes its place, now and ever
            after; else it raises its UnreadableImageError.
    """

    def __init__(
        self,
        records: Sequence[ImageRecord],
        size: tuple[int, int],
        read: ImageReader = WHOLE,
        skipped: SkippedImages | None = None,
    ) -> None:
        self.records, self.resize, self.read, self.skipped = records, Resize(*size), read, skipped

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, key: SampleKey) -> tuple[Sample, ImageInfo]:
        record = self.records[key.image]
        if self.skipped is not None and key.image in self.skipped:
            return _BLANK
        try:
            sample = Sample(self.read(record), record.boxes, record.labels, record.crowd)
        except UnreadableImageError as error:
            if self.skipped is None:
                raise
            self.skipped.add(key.image, error)
            return _BLANK
        return transformed(record, sample, self.resize, np.random.default_rng(0))


_BLANK = (
    Sample(np.zeros((0, 0, 3), np.uint8), np.zeros((0, 4), np.float32), np.zeros(0, np.int64), np.zeros(0, np.bool_)),
    ImageInfo(BLANK, "blank", 0, 0, 1.0, 1.0),
)


def transformed(
    record: ImageRecord, sample: Sample, transform: Transform, rng: np.random.Generator
) -> tuple[Sample, ImageInfo]:
    """What a transform makes of an image, and where that came from."""
    sample = transform(sample, rng)
    scale_x, scale_y = sample.width / record.width, sample.height / record.height
    return sample, ImageInfo(record.id, str(record.path), record.height, record.width, scale_x, scale_y)


def usual_ratio(records: Sequence[ImageRecord]) -> float:
    """Width / height that nine in ten images have to within a twentieth, or 1 where there is no such ratio."""
    ratios = np.array([record.width / record.height for record in records])
    median = float(np.median(ratios))
    usual = (np.abs(ratios / median - 1) < 0.05).mean() >= 0.9
    return median if usual else 1.0
