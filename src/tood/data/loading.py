"""From a dataset to batches of uint8 pixels with their ground truth."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from tood.data.dataset import DetectionDataset, ImageRecord
from tood.data.image_cache import ImageCache, build_cache
from tood.data.images import read_image
from tood.data.sampler import BLANK, EvalBatchSampler, SampleKey, TrainBatchSampler
from tood.data.transforms.geometry import Resize, fit_scale, resized_shape, scale_boxes
from tood.data.transforms.pipeline import AugmentConfig, build_transforms, canvas_shape
from tood.data.transforms.sample import Sample, Transform
from tood.errors import ToodError
from tood.structures import Targets

# Decoded images that take less memory than this are kept unless told otherwise.
UNQUESTIONED_CACHE_BYTES = 1_000_000_000


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


@dataclass(frozen=True)
class Batch:
    """Images of one step.

    Attributes:
        images: [B, 3, H, W] uint8 RGB, contiguous, padded right and bottom with zeros.
        sizes: [B, 2] int64, height, width of each image inside the padding; 0, 0 of a blank (see `TrainBatchSampler`).
        targets: ground truth of each image in input pixels, crowds flagged.
        infos: origin of each image.
    """

    images: Tensor
    sizes: Tensor
    targets: tuple[Targets, ...]
    infos: tuple[ImageInfo, ...]

    def __len__(self) -> int:
        return len(self.infos)

    @property
    def blank(self) -> bool:
        """Whether no image was left for this process (see `TrainBatchSampler`)."""
        return all(info.width == 0 for info in self.infos)

    def to(self, device: torch.device | str, non_blocking: bool = True) -> Batch:
        """The same batch on another device."""
        return Batch(
            self.images.to(device, non_blocking=non_blocking),
            self.sizes.to(device, non_blocking=non_blocking),
            tuple(targets.to(device) for targets in self.targets),
            self.infos,
        )

    def pin_memory(self) -> Batch:
        """With the pixels in page-locked memory; DataLoader calls this."""
        return replace(self, images=self.images.pin_memory())

    def padded_to(self, height: int, width: int) -> Batch:
        """With so many rows and columns, at least as many as now."""
        rows, columns = height - self.images.shape[2], width - self.images.shape[3]
        return self if rows == columns == 0 else replace(self, images=F.pad(self.images, (0, columns, 0, rows)))

    def __reduce__(self) -> tuple[Callable[..., Batch], tuple[Any, ...]]:
        # On the way from a worker each tensor costs a file descriptor: only the pixels are worth one.
        counts = [len(targets) for targets in self.targets]
        fields = [
            torch.cat([getattr(targets, name) for targets in self.targets]).cpu().numpy()
            for name in ("boxes", "labels", "crowd")
        ]
        return _unpack, (self.images, self.sizes.cpu().numpy(), counts, *fields, self.infos)


def _unpack(
    images: Tensor,
    sizes: NDArray[np.int64],
    counts: list[int],
    boxes: NDArray[np.float32],
    labels: NDArray[np.int64],
    crowd: NDArray[np.bool_],
    infos: tuple[ImageInfo, ...],
) -> Batch:
    fields = (torch.split(torch.from_numpy(field), counts) for field in (boxes, labels, crowd))
    targets = tuple(Targets(*parts) for parts in zip(*fields, strict=True))
    return Batch(images, torch.from_numpy(sizes), targets, infos)


class UnreadableImageError(ToodError):
    """An image of the dataset cannot be used; the message is the sentence alone, also out of a worker.

    DataLoader raises a worker's error anew with the worker's whole traceback as its message.
    """

    def __init__(self, message: str) -> None:
        super().__init__(message.rsplit(f"{type(self).__name__}: ", 1)[-1].strip())


class TrainImages(Dataset[tuple[Sample, ImageInfo]]):
    """Augmented images: what a key gives depends on (seed, epoch, image) and the batch's canvas alone."""

    def __init__(
        self, records: Sequence[ImageRecord], augment: AugmentConfig, seed: int, divisor: int, cache: ImageCache | None
    ) -> None:
        self.records, self.augment, self.seed, self.divisor, self.cache = records, augment, seed, divisor, cache
        self.ratio = usual_ratio(records)

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, key: SampleKey) -> tuple[Sample, ImageInfo]:
        if key.image == BLANK:
            return _BLANK
        rng = np.random.default_rng((self.seed, key.epoch, key.image))
        side = key.canvas or self.augment.canvas
        canvas = None if side is None else canvas_shape(side, self.ratio, self.divisor)
        transforms = build_transforms(self.augment, canvas, self._fetch)
        return _transformed(self.records[key.image], self._sample(key.image), transforms, rng)

    def _fetch(self, rng: np.random.Generator) -> Sample:
        return self._sample(int(rng.integers(len(self.records))))

    def _sample(self, index: int) -> Sample:
        record = self.records[index]
        if self.cache is None:
            return _read_sample(record)
        pixels = self.cache[index]
        boxes = scale_boxes(record.boxes, pixels.shape[1] / record.width, pixels.shape[0] / record.height)
        return Sample(pixels, boxes, record.labels, record.crowd)


class EvalImages(Dataset[tuple[Sample, ImageInfo]]):
    """Images resized to fit within (short, long), nothing else."""

    def __init__(self, records: Sequence[ImageRecord], size: tuple[int, int]) -> None:
        self.records, self.resize = records, Resize(*size)

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, key: SampleKey) -> tuple[Sample, ImageInfo]:
        record = self.records[key.image]
        return _transformed(record, _read_sample(record), self.resize, np.random.default_rng(0))


_BLANK = (
    Sample(np.zeros((0, 0, 3), np.uint8), np.zeros((0, 4), np.float32), np.zeros(0, np.int64), np.zeros(0, np.bool_)),
    ImageInfo(BLANK, "blank", 0, 0, 1.0, 1.0),
)


def _read_sample(record: ImageRecord) -> Sample:
    try:
        pixels = read_image(record.path, expected_size=(record.width, record.height))
    except ToodError as error:
        raise UnreadableImageError(str(error)) from None
    return Sample(pixels, record.boxes, record.labels, record.crowd)


def _transformed(
    record: ImageRecord, sample: Sample, transform: Transform, rng: np.random.Generator
) -> tuple[Sample, ImageInfo]:
    sample = transform(sample, rng)
    scale_x, scale_y = sample.width / record.width, sample.height / record.height
    return sample, ImageInfo(record.id, str(record.path), record.height, record.width, scale_x, scale_y)


@dataclass(frozen=True)
class Collate:
    """Samples of a batch into one `Batch`, padded right and bottom with zeros to a multiple of `divisor`."""

    divisor: int

    def __call__(self, items: Sequence[tuple[Sample, ImageInfo]]) -> Batch:
        samples = [sample for sample, _ in items]
        sizes = torch.tensor([[sample.height, sample.width] for sample in samples])
        height, width = (max(-(-int(side) // self.divisor), 1) * self.divisor for side in sizes.amax(dim=0))
        images = torch.zeros(len(samples), 3, height, width, dtype=torch.uint8)
        for planes, sample in zip(images.numpy(), samples, strict=True):
            if sample.image.size == 0:
                continue
            for plane, channel in zip(planes, cv2.split(sample.image), strict=True):
                plane[: sample.height, : sample.width] = channel
        targets = tuple(
            Targets(
                torch.from_numpy(sample.boxes.astype(np.float32)),
                torch.from_numpy(sample.labels.astype(np.int64)),
                torch.from_numpy(sample.crowd.astype(np.bool_)),
            )
            for sample in samples
        )
        return Batch(images, sizes, targets, tuple(info for _, info in items))


def default_workers(on_gpu: bool | None = None) -> int:
    """Loading processes that pay: with a GPU one a core, at most 8; else a quarter, as training needs the cores.

    Processes that torchrun or `accelerate launch` started side by side share the cores.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    cores = max(1, cores // int(os.environ.get("LOCAL_WORLD_SIZE", "1")))
    gpu = torch.cuda.is_available() if on_gpu is None else on_gpu
    return min(cores, 8) if gpu else max(1, cores // 4)


def train_loader(
    dataset: DetectionDataset,
    augment: AugmentConfig,
    batch_size: int,
    workers: int | None = None,
    seed: int = 0,
    divisor: int = 32,
    *,
    drop_last: bool = False,
    keep_empty: bool = True,
    smallest_side: int = 1,
    cache: bool | None = False,
    cache_limit_gb: float = 2.0,
    accumulation: int = 1,
    processes: int = 1,
    process: int = 0,
    on_gpu: bool | None = None,
) -> DataLoader[Batch]:
    """Shuffled, augmented batches, of several processes those of this one.

    Call `loader.batch_sampler.set_epoch(epoch)` (after Accelerate's `prepare`: `loader.set_epoch(epoch)`) before each
    epoch. What is loaded depends on seed, epoch and image alone, not on the number of workers or processes.

    Args:
        dataset: the training split.
        augment: how images are resized and varied. Where it keeps their ratio, landscape and portrait images go into
            separate steps.
        batch_size: images in a batch.
        workers: loading processes, 0 for none; None picks `default_workers(on_gpu)`.
        seed: of order and augmentation.
        divisor: images are padded to a multiple of this many pixels.
        drop_last: leave out the smaller last step.
        keep_empty: keep images without any annotation; the published recipes leave them out.
        smallest_side: leave out images of which a side has fewer pixels; the published recipes: 32.
        cache: keep the decoded images in memory, once for all workers; None does so where they are small enough for
            it to be no question.
        cache_limit_gb: the most memory to spend on that; images that do not fit even when shrunk to the largest size
            that `augment` asks for are read from disk each time, and a log line says so.
        accumulation, processes, process: see `TrainBatchSampler`.
        on_gpu: whether the batches go to a CUDA device; None takes the machine to be used for what it has.

    Raises:
        ToodError: no image is left to train on; while iterating (or here, with `cache`), an image that is missing or
            broken, with its file.
    """
    records = [
        image
        for image in dataset.images
        if (keep_empty or len(image.labels)) and min(image.width, image.height) >= smallest_side
    ]
    if not records:
        wanted = [] if keep_empty else ["with an annotation"]
        wanted += [f"with sides of {smallest_side} pixels or more"] if smallest_side > 1 else []
        told = " ".join(["there is no image to train on", *wanted])
        raise ToodError(f"{dataset.root}, split {dataset.split!r}: {told}")
    if cache is None:
        cache = sum(3 * record.width * record.height for record in records) < UNQUESTIONED_CACHE_BYTES
    kept = build_cache(records, augment.largest_scale, int(cache_limit_gb * 1e9)) if cache else None
    sampler = TrainBatchSampler(
        len(records),
        batch_size,
        seed,
        landscape=_landscape(records) if augment.keeps_ratio else None,
        drop_last=drop_last,
        canvases=augment.canvases,
        accumulation=accumulation,
        processes=processes,
        process=process,
    )
    return _loader(TrainImages(records, augment, seed, divisor, kept), sampler, workers, divisor, on_gpu)


def eval_loader(
    dataset: DetectionDataset,
    size: tuple[int, int],
    batch_size: int = 1,
    workers: int | None = None,
    divisor: int = 32,
    *,
    processes: int = 1,
    process: int = 0,
    on_gpu: bool | None = None,
) -> DataLoader[Batch]:
    """Every image once, resized to fit within `size` = (short, long) pixels; a batch's images have one padded shape.

    Args:
        dataset: the split; it may lack annotations.
        size: (short, long) limits in pixels of the input.
        batch_size, workers, divisor, on_gpu: as for `train_loader`.
        processes, process: see `EvalBatchSampler`.

    Raises:
        ToodError: the split is empty; while iterating, an image that is missing or broken, with its file.
    """
    if not dataset.images:
        raise ToodError(f"{dataset.root}, split {dataset.split!r}: there is no image to evaluate on")
    shapes = np.array([_padded_shape(image, size, divisor) for image in dataset.images], dtype=np.int64)
    sampler = EvalBatchSampler(shapes, batch_size, processes, process)
    return _loader(EvalImages(dataset.images, size), sampler, workers, divisor, on_gpu)


def usual_ratio(records: Sequence[ImageRecord]) -> float:
    """Width / height that nine in ten images have to within a twentieth, or 1 where there is no such ratio."""
    ratios = np.array([record.width / record.height for record in records])
    median = float(np.median(ratios))
    usual = (np.abs(ratios / median - 1) < 0.05).mean() >= 0.9
    return median if usual else 1.0


def _padded_shape(record: ImageRecord, size: tuple[int, int], divisor: int) -> tuple[int, int]:
    """Height, width of an image's input, its padding included."""
    scale = fit_scale(record.height, record.width, *size)
    height, width = resized_shape(record.height, record.width, scale)
    return -(-height // divisor) * divisor, -(-width // divisor) * divisor


def _landscape(records: Sequence[ImageRecord]) -> NDArray[np.bool_]:
    return np.array([record.width >= record.height for record in records], dtype=np.bool_)


def _loader(
    images: TrainImages | EvalImages,
    sampler: TrainBatchSampler | EvalBatchSampler,
    workers: int | None,
    divisor: int,
    on_gpu: bool | None,
) -> DataLoader[Batch]:
    on_gpu = torch.cuda.is_available() if on_gpu is None else on_gpu
    count = default_workers(on_gpu) if workers is None else workers
    return DataLoader(
        images,  # type: ignore[arg-type]  # typed by what collating makes of the items
        batch_sampler=sampler,
        num_workers=count,
        collate_fn=Collate(divisor),
        pin_memory=on_gpu,
        persistent_workers=count > 0,
        prefetch_factor=4 if count > 0 else None,
        worker_init_fn=_one_thread if count > 0 else None,
    )


def _one_thread(_worker: int) -> None:
    """A worker is one of several: threads of its own would only fight for the cores."""
    cv2.setNumThreads(0)
    torch.set_num_threads(1)
