"""Where a run's pictures are, and how they are loaded."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tood.choices import Exif
from tood.data.reading import Unreadable


@dataclass(frozen=True)
class DataConfig:
    """Where the pictures are.

    Attributes:
        path: folder of the dataset; COCO, YOLO and Pascal VOC are recognised.
        train, val: names of its splits; null takes the ones that are meant for it (`tood data check` lists them).
        exif: what the labels of pictures with an EXIF orientation were made on: the pixels as "stored", or the "turned"
            picture; "auto" goes by the size in the labels where it tells, else takes them as stored and says so.
        workers: processes that load and augment images, in each training process; 0 loads in the trainer itself,
            null picks as suits the machine.
        cache: true keeps decoded images in memory, so that each file is read once; a folder keeps them there, across
            runs; null keeps them in memory where they take less than 1 GB.
        cache_gb: the most memory or disk to spend on that; null is 2 GB of memory, 50 GB of disk.
        scaled_jpeg: decode photographs of twice the size that training asks for, or more, at a half, quarter or eighth
            of their own, which is quicker and changes pixels slightly; the published recipes and evaluations never do.
        unreadable: what an image does that cannot be read, or no longer: "stop" ends the run with its name, "skip"
            puts another one in its place and says so once; in validation it is left out of all figures from then on.
        keep_empty: train on images without any annotation too; the published recipes leave them out.
        smallest_side: train on images of at least so many pixels a side; the published recipes: 32.
    """

    path: str = "data/coco"
    train: str | None = None
    val: str | None = None
    exif: Exif = "auto"
    workers: int | None = None
    cache: bool | Path | None = None
    cache_gb: float | None = None
    scaled_jpeg: bool = False
    unreadable: Unreadable = "stop"
    keep_empty: bool = True
    smallest_side: int = 1


@dataclass(frozen=True)
class BatchPlan:
    """How the images of an epoch are dealt out.

    Attributes:
        size: images in a batch of one process.
        accumulation: batches of one process that make a step.
        seed: of order and augmentation.
        drop_last: leave out the smaller last step, unless it is the only one.
    """

    size: int
    accumulation: int = 1
    seed: int = 0
    drop_last: bool = False
