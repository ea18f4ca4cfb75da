"""One image of a dataset at a time, as training and evaluation take it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import Dataset

from tood.data.dataset import ImageRecord, ImageRecords
from tood.data.disk_cache import DiskCache
from tood.data.image_cache import ImageCache
from tood.data.images import reduced_shape
from tood.data.reading import WHOLE, ImageReader, SkippedImages, UnreadableImageError
from tood.data.sampler import BLANK, SampleKey
from tood.data.transforms.augment import AugmentConfig
from tood.data.transforms.geometry import scale_boxes, with_area
from tood.data.transforms.pipeline import Circumstances, build_transforms, canvas_shape
from tood.data.transforms.sample import Compose, Sample
from tood.data.transforms.steps import StretchStep
from tood.input import Geometry, InputConfig, prepare

# So many images that cannot be read, drawn one after the other, are no accident.
_TRIES = 20


@dataclass(frozen=True)
class ImageInfo:
    """Where an input image came from.

    Attributes:
        id: the image's number in its dataset.
        path: its file.
        geometry: where it lies in the input; of training images, cropped and moved at random, the sizes alone.
    """

    id: int
    path: str
    geometry: Geometry

    @property
    def blank(self) -> bool:
        """Whether there is no image: it fills up a batch."""
        return self.geometry.image == (0, 0)


class TrainImages(Dataset[tuple[Sample, ImageInfo]]):
    """Augmented images: what a key gives depends on (seed, epoch, image) and the batch's canvas alone.

    Args:
        records: the images.
        augment: what becomes of them.
        input: of the model.
        seed: of all draws.
        cache: where decoded images are kept, if anywhere.
        read: decodes an image that is not kept.
        skipped: where given, an image that cannot be read is counted there and another, drawn at random, takes its
            place; else it raises its UnreadableImageError.
    """

    def __init__(
        self,
        records: Sequence[ImageRecord],
        augment: AugmentConfig,
        input: InputConfig,
        seed: int,
        cache: ImageCache | DiskCache | None = None,
        read: ImageReader = WHOLE,
        skipped: SkippedImages | None = None,
    ) -> None:
        self.records, self.augment, self.input, self.seed = ImageRecords.of(records), augment, input, seed
        self.cache, self.read, self.skipped = cache, read, skipped
        self.ratio = usual_ratio(self.records.sizes)

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, key: SampleKey) -> tuple[Sample, ImageInfo]:
        if key.image == BLANK:
            return _BLANK
        # A stream of its own: whether an image can be read does not change what is drawn for those that can.
        index, sample = self._readable(key.image, np.random.default_rng((self.seed, key.epoch, key.image, 1)))
        sample = self.transforms(key)(sample, self.generator(key))
        return sample, image_info(self.records[index], sample)

    def generator(self, key: SampleKey) -> np.random.Generator:
        """Where the draws for a key come from."""
        return np.random.default_rng((self.seed, key.epoch, key.image))

    def transforms(self, key: SampleKey) -> Compose:
        """What becomes of a key's image."""
        step, stretch = self.augment.canvas, self.augment.find(StretchStep)
        canvas = None
        if step is not None:
            canvas = canvas_shape(key.canvas or step.side, self.ratio, self.input.divisor)
        elif stretch is not None:
            canvas = (key.canvas or stretch.side,) * 2
        return build_transforms(self.augment, Circumstances(self.input, canvas, self._fetch, key.share, key.common))

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
    """Images as a network's input wants them, nothing else.

    Args:
        records: the images.
        input: of the model.
        read: decodes them.
        skipped: where given, an image that cannot be read is counted there and a blank takes its place, now and ever
            after; else it raises its UnreadableImageError.
    """

    def __init__(
        self,
        records: Sequence[ImageRecord],
        input: InputConfig,
        read: ImageReader = WHOLE,
        skipped: SkippedImages | None = None,
    ) -> None:
        self.records, self.input, self.read, self.skipped = ImageRecords.of(records), input, read, skipped

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, key: SampleKey) -> tuple[Sample, ImageInfo]:
        record = self.records[key.image]
        if self.skipped is not None and key.image in self.skipped:
            return _BLANK
        try:
            pixels, geometry = prepare(self.read(record), self.input)
        except UnreadableImageError as error:
            if self.skipped is None:
                raise
            self.skipped.add(key.image, error)
            return _BLANK
        sample = Sample(pixels, geometry.to_input(record.boxes), record.labels, record.crowd)
        return with_area(sample), ImageInfo(record.id, str(record.path), geometry)


_BLANK = (
    Sample(np.zeros((0, 0, 3), np.uint8), np.zeros((0, 4), np.float32), np.zeros(0, np.int64), np.zeros(0, np.bool_)),
    ImageInfo(BLANK, "blank", Geometry((0, 0), (0, 0))),
)


def image_info(record: ImageRecord, sample: Sample) -> ImageInfo:
    """Where what became of an image in training came from."""
    size = sample.height, sample.width
    return ImageInfo(record.id, str(record.path), Geometry((record.height, record.width), size, canvas=size))


def usual_ratio(sizes: NDArray[np.int32]) -> float:
    """Width / height that nine in ten images have to within a twentieth, or 1 where there is no such ratio.

    Args:
        sizes: [I, 2] width, height in pixels.
    """
    ratios = sizes[:, 0] / sizes[:, 1]
    median = float(np.median(ratios))
    usual = (np.abs(ratios / median - 1) < 0.05).mean() >= 0.9
    return median if usual else 1.0
