"""How fast images get from the disk to a batch, stage by stage, and which stage to do something about."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader

from tood.data.config import BatchPlan, DataConfig
from tood.data.dataset import DetectionDataset, ImageRecord
from tood.data.images import read_image
from tood.data.loading import MEMORY_LIMIT, Batch, Collate, default_workers, train_loader
from tood.data.reading import WHOLE, ImageReader
from tood.data.sampler import SampleKey
from tood.data.samples import TrainImages, image_info
from tood.data.transforms import AugmentConfig, Sample
from tood.errors import ToodError
from tood.input import InputConfig

READ, DECODE, TRANSFORM, COLLATE = "read the file", "decode", "resize and augment", "collate into a batch"


@dataclass(frozen=True)
class StageRate:
    """One stage alone in one process: images a second, and its share of the time of all stages."""

    name: str
    images_per_second: float
    share: float


@dataclass(frozen=True)
class LoaderRate:
    """The whole loader with so many loading processes: images a second that reach the trainer."""

    workers: int
    images_per_second: float


@dataclass(frozen=True)
class LoadingBench:
    """What was measured.

    Attributes:
        images: number of images that it was measured on.
        stages: in the order that an image goes through them.
        loaders: the whole of it, by number of workers.
        limit: name of the stage that takes most of a worker's time.
        advice: one sentence: which stage limits, and what to do.
    """

    images: int
    stages: tuple[StageRate, ...]
    loaders: tuple[LoaderRate, ...]
    limit: str
    advice: str

    def to_dict(self) -> dict[str, Any]:
        """All figures as plain values that json can hold."""
        return asdict(self)


def bench_loading(
    dataset: DetectionDataset,
    data: DataConfig,
    augment: AugmentConfig,
    input: InputConfig,
    batch_size: int,
    *,
    images: int = 200,
) -> LoadingBench:
    """Measure the loading of training images without any cache.

    Stages are timed in this process with one thread, as a worker has, each in the better of two passes; loaders over
    their second epoch, when their processes run. Files that were lately read come from the system's memory.

    Args:
        dataset: the split.
        data: its number of workers is measured, and one worker in any case; its cache is not used.
        augment: what becomes of its images.
        input: of the model.
        batch_size: images in a batch.
        images: measure on so many, evenly spread over the dataset.

    Raises:
        ToodError: no image, or one that cannot be read.
    """
    if not dataset.images:
        raise ToodError(f"{dataset.root}, split {dataset.split!r}: there is no image to measure on")
    if images < 1 or batch_size < 1:
        raise ToodError("give at least one image, and at least one a batch")
    picked = np.linspace(0, len(dataset.images) - 1, min(images, len(dataset.images))).astype(int)
    part = replace(dataset, images=dataset.columns.take(picked))
    scaling = ImageReader(partial(augment.largest_scale, input=input))
    loading = TrainImages(part.images, augment, input, 0, read=scaling if data.scaled_jpeg else WHOLE)
    with _one_thread():
        seconds = np.minimum(*(_stages(loading, epoch, batch_size, Collate(input)) for epoch in (0, 1)))
    names = (READ, DECODE, TRANSFORM, COLLATE)
    stages = tuple(
        StageRate(name, len(part) / max(spent, 1e-9), spent / max(float(seconds.sum()), 1e-9))
        for name, spent in zip(names, seconds.tolist(), strict=True)
    )
    counts = sorted({1, default_workers() if data.workers is None else data.workers})
    uncached, plan = replace(data, cache=False), BatchPlan(batch_size)
    loaders = tuple(
        LoaderRate(n, _loader_rate(train_loader(part, replace(uncached, workers=n), augment, input, plan)))
        for n in counts
    )
    limit = max(stages, key=lambda stage: stage.share)
    return LoadingBench(len(part), stages, loaders, limit.name, advice(dataset, scaling, limit, data.scaled_jpeg))


@contextmanager
def _one_thread() -> Iterator[None]:
    before = cv2.getNumThreads(), torch.get_num_threads()
    cv2.setNumThreads(0)
    torch.set_num_threads(1)
    try:
        yield
    finally:
        cv2.setNumThreads(before[0])
        torch.set_num_threads(before[1])


def _stages(images: TrainImages, epoch: int, batch_size: int, collate: Collate) -> NDArray[np.float64]:
    """[4] seconds spent in each stage over all images."""
    spent, clock = np.zeros(4), time.perf_counter
    items = []
    for index, record in enumerate(images.records):
        key = SampleKey(epoch, index)
        begun = clock()
        data = _file_bytes(record)
        read = clock()
        pixels = read_image(data, name=str(record.path), exif=record.turned, reduction=images.read.reduction(record))
        decoded = clock()
        sample = Sample(pixels, images.boxes_on(pixels, record), record.labels, record.crowd)
        sample = images.transforms(key)(sample, images.generator(key))
        items.append((sample, image_info(record, sample)))
        made = clock()
        spent[:3] += read - begun, decoded - read, made - decoded
        if len(items) == batch_size or index == len(images) - 1:
            begun = clock()
            collate(items)
            spent[3] += clock() - begun
            items = []
    return spent


def _file_bytes(record: ImageRecord) -> bytes:
    try:
        return record.path.read_bytes()
    except OSError as error:
        raise ToodError(f"{record.path}: cannot be read ({error.strerror or error})") from None


def _loader_rate(loader: DataLoader[Batch]) -> float:
    begun = 0.0
    for _ in range(2):
        begun = time.perf_counter()
        loaded = sum(len(batch) for batch in loader)
    return loaded / (time.perf_counter() - begun)


def advice(dataset: DetectionDataset, scaling: ImageReader, limit: StageRate, scaled_jpeg: bool = False) -> str:
    """One sentence: that this stage takes most of the time, and what to do about it.

    Args:
        dataset: what was loaded.
        scaling: decodes large JPEGs at part of their size.
        limit: the slowest stage.
        scaled_jpeg: whether JPEGs were decoded so.
    """
    told = f"what limits a worker is to {limit.name} ({100 * limit.share:.0f} % of its time)"
    sizes, counts = np.unique(dataset.columns.sizes, axis=0, return_counts=True)
    gigabytes = float((3 * sizes.astype(np.int64).prod(axis=1) * counts).sum()) / 1e9
    reduced = np.array([scaling.reduction_of(height, width) > 1 for width, height in sizes.tolist()])
    spared = np.average(reduced, weights=counts)
    if limit.name == DECODE and not scaled_jpeg and spared > 0.5:
        return f"{told}: JPEGs here are twice as large as wanted or more, `--set data.scaled_jpeg=true` decodes less"
    if limit.name in (READ, DECODE):
        if gigabytes < MEMORY_LIMIT:
            return f"{told}: `--set data.cache=true` keeps the decoded images in {gigabytes:.2g} GB of memory"
        return f"{told}: `--set data.cache=FOLDER` keeps the decoded images there, {gigabytes:,.0f} GB if there is room"
    if limit.name == TRANSFORM:
        return f"{told}: take more workers, or spare some of it (augment.photometric=0, a smaller augment.canvas)"
    return f"{told}: take more workers"
