"""From a dataset to batches of uint8 pixels with their ground truth."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader

from tood.data.config import BatchPlan, DataConfig
from tood.data.dataset import DetectionDataset, ImageRecords
from tood.data.disk_cache import DiskCache
from tood.data.image_cache import ImageCache, build_cache
from tood.data.reading import ImageReader, SkippedImages
from tood.data.sampler import EvalBatchSampler, TrainBatchSampler
from tood.data.samples import EvalImages, ImageInfo, TrainImages
from tood.data.transforms.augment import AugmentConfig
from tood.data.transforms.sample import Sample
from tood.errors import ToodError
from tood.input import InputConfig, stacked
from tood.machine import usable_cores
from tood.processes import Processes
from tood.structures import Targets

# Decoded images that take less memory than this are kept unless told otherwise.
UNQUESTIONED_CACHE_BYTES = 1_000_000_000
# The most that is spent on decoded images unless told otherwise, GB.
MEMORY_LIMIT, DISK_LIMIT = 2.0, 50.0


@dataclass(frozen=True)
class Batch:
    """Images of one step.

    Attributes:
        images: [B, 3, H, W] uint8 RGB in channels-last memory, as pixels are decoded and networks compute, padded right
            and bottom with zeros.
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
        return all(info.blank for info in self.infos)

    def to(self, device: torch.device | str, non_blocking: bool = True) -> Batch:
        """The same batch on another device."""
        return Batch(
            self.images.to(device, non_blocking=non_blocking),
            self.sizes.to(device, non_blocking=non_blocking),
            tuple(targets.to(device) for targets in self.targets),
            self.infos,
        )

    def pin_memory(self) -> Batch:
        """In page-locked memory, which `to` copies from without waiting for the device; DataLoader calls this."""
        targets = tuple(targets.pin_memory() for targets in self.targets)
        return replace(self, images=self.images.pin_memory(), sizes=self.sizes.pin_memory(), targets=targets)

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


@dataclass(frozen=True)
class Collate:
    """Samples of a batch into one `Batch`, padded right and bottom with zeros to whole divisors of the input."""

    input: InputConfig

    def __call__(self, items: Sequence[tuple[Sample, ImageInfo]]) -> Batch:
        samples = [sample for sample, _ in items]
        sizes = torch.tensor([[sample.height, sample.width] for sample in samples])
        images = torch.from_numpy(stacked([sample.image for sample in samples], self.input))
        targets = tuple(
            Targets(
                torch.from_numpy(sample.boxes.astype(np.float32)),
                torch.from_numpy(sample.labels.astype(np.int64)),
                torch.from_numpy(sample.crowd.astype(np.bool_)),
            )
            for sample in samples
        )
        return Batch(images.permute(0, 3, 1, 2), sizes, targets, tuple(info for _, info in items))


def default_workers(on_gpu: bool | None = None) -> int:
    """Loading processes that pay: with a GPU one for each core but one, at most 16, as eight did not keep up with an
    H100 (docs/benchmarks-gpu.md); else a quarter, as training needs the cores.

    Processes that torchrun or `accelerate launch` started side by side share the cores.
    """
    cores = max(1, usable_cores() // int(os.environ.get("LOCAL_WORLD_SIZE", "1")))
    gpu = torch.cuda.is_available() if on_gpu is None else on_gpu
    return max(1, min(cores - 1, 16)) if gpu else max(1, cores // 4)


def train_loader(
    dataset: DetectionDataset,
    data: DataConfig,
    augment: AugmentConfig,
    input: InputConfig,
    plan: BatchPlan,
    processes: Processes = Processes(),  # noqa: B008 - frozen
    *,
    on_gpu: bool | None = None,
) -> DataLoader[Batch]:
    """Shuffled, augmented batches, of several processes those of this one.

    Call `loader.batch_sampler.set_epoch(epoch)` (after Accelerate's `prepare`: `loader.set_epoch(epoch)`) before each
    epoch, and `dataset.picture_notes.tell()` after it, which says what was found in the pictures. What is loaded
    depends on seed, epoch and image alone, not on the number of workers or processes.

    Args:
        dataset: the training split.
        data: which images, how many processes load them, where decoded ones are kept. A log line says where the limit
            of a cache does not hold the images even when they are shrunk to the largest size that training asks for.
        augment: how images are resized and varied. Where it keeps their ratio, landscape and portrait images go into
            separate steps.
        input: of the model.
        plan: which images form a batch and a step.
        processes: those that share the images of a step.
        on_gpu: whether the batches go to a CUDA device; None takes the machine to be used for what it has.

    Raises:
        ToodError: no image is left to train on; while iterating (or here, with a cache), an image that is missing or
            broken, with its file, unless `data.unreadable` is "skip".
    """
    records = _records(dataset, data)
    largest_scale = partial(augment.largest_scale, input=input)
    notes = dataset.picture_notes
    read = ImageReader(largest_scale if data.scaled_jpeg else None, notes)
    skipped = SkippedImages(records) if data.unreadable == "skip" else None
    kept = _cache(data, records, largest_scale, read, skipped is not None)
    if processes.main:  # each has met all pictures
        notes.tell()
    sampler = TrainBatchSampler(
        len(records),
        plan,
        landscape=_landscape(records) if augment.keeps_ratio else None,
        canvases=augment.sides,
        processes=processes.count,
        process=processes.rank,
    )
    images = TrainImages(records, augment, input, plan.seed, kept, read, skipped)
    return _loader(images, sampler, data.workers, input, on_gpu)


def eval_loader(
    dataset: DetectionDataset,
    input: InputConfig,
    batch_size: int = 1,
    workers: int | None = None,
    processes: Processes = Processes(),  # noqa: B008 - frozen
    *,
    on_gpu: bool | None = None,
    skipped: SkippedImages | None = None,
) -> DataLoader[Batch]:
    """Every image once, as the model's input wants it; a batch's images have one padded shape.

    What was found in the pictures says `dataset.picture_notes.tell()` afterwards.

    Args:
        dataset: the split; it may lack annotations.
        input: of the model.
        batch_size: images in a batch.
        workers: loading processes, 0 for none; None picks `default_workers(on_gpu)`.
        processes: see `EvalBatchSampler`.
        on_gpu: as for `train_loader`.
        skipped: where given, images that cannot be read are counted there and are blanks in their batches.

    Raises:
        ToodError: the split is empty; while iterating, an image that is missing or broken, with its file.
    """
    if not dataset.images:
        raise ToodError(f"{dataset.root}, split {dataset.split!r}: there is no image to evaluate on")
    sizes, kind = np.unique(dataset.columns.sizes, axis=0, return_inverse=True)
    canvases = (input.geometry(height, width).canvas for width, height in sizes.tolist())
    shapes = np.array([input.padded(*canvas) for canvas in canvases], dtype=np.int64)[kind.reshape(-1)]
    sampler = EvalBatchSampler(shapes, batch_size, processes.count, processes.rank)
    images = EvalImages(dataset.images, input, ImageReader(notes=dataset.picture_notes), skipped)
    return _loader(images, sampler, workers, input, on_gpu)


def _records(dataset: DetectionDataset, data: DataConfig) -> ImageRecords:
    """The images to train on."""
    images = dataset.columns
    wanted_ones = (images.counts > 0) | data.keep_empty
    if len(images):
        wanted_ones &= images.sizes.min(axis=1) >= data.smallest_side
    records = images.take(np.flatnonzero(wanted_ones))
    if not len(records):
        wanted = [] if data.keep_empty else ["with an annotation"]
        wanted += [f"with sides of {data.smallest_side} pixels or more"] if data.smallest_side > 1 else []
        told = " ".join(["there is no image to train on", *wanted])
        raise ToodError(f"{dataset.root}, split {dataset.split!r}: {told}")
    return records


def _cache(
    data: DataConfig,
    records: ImageRecords,
    largest_scale: Callable[[int, int], float],
    read: ImageReader,
    keep_going: bool,
) -> ImageCache | DiskCache | None:
    wanted, limit_gb = data.cache, data.cache_gb
    if isinstance(wanted, Path):
        limit = int((DISK_LIMIT if limit_gb is None else limit_gb) * 1e9)
        return DiskCache(wanted, records, largest_scale, limit, read)
    if wanted is None:
        needed = int(3 * records.sizes.astype(np.int64).prod(axis=1).sum())
        wanted = needed < UNQUESTIONED_CACHE_BYTES
    if not wanted:
        return None
    limit = int((MEMORY_LIMIT if limit_gb is None else limit_gb) * 1e9)
    return build_cache(records, largest_scale, limit, read, keep_going)


def _landscape(records: ImageRecords) -> NDArray[np.bool_]:
    return np.asarray(records.sizes[:, 0] >= records.sizes[:, 1])


def _loader(
    images: TrainImages | EvalImages,
    sampler: TrainBatchSampler | EvalBatchSampler,
    workers: int | None,
    input: InputConfig,
    on_gpu: bool | None,
) -> DataLoader[Batch]:
    on_gpu = torch.cuda.is_available() if on_gpu is None else on_gpu
    count = default_workers(on_gpu) if workers is None else workers
    return DataLoader(
        images,  # type: ignore[arg-type]  # typed by what collating makes of the items
        batch_sampler=sampler,
        num_workers=count,
        collate_fn=Collate(input),
        pin_memory=on_gpu,
        persistent_workers=count > 0,
        prefetch_factor=4 if count > 0 else None,
        worker_init_fn=_prepare_worker if count > 0 else None,
    )


def _prepare_worker(_worker: int) -> None:
    """A worker is one of several: threads of its own would only fight for the cores.

    Ctrl-C and a closed terminal reach it too, and are for the process that it loads for, which ends it.
    """
    for name in ("SIGINT", "SIGHUP"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)
    cv2.setNumThreads(0)
    torch.set_num_threads(1)
