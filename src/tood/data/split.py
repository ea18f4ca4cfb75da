"""Divide a dataset into training, validation and test images, every class in each as far as its images go."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tood.choices import Exif, ImageTransfer
from tood.counted import counted
from tood.data.convert import write_datasets
from tood.data.dataset import DetectionDataset
from tood.data.formats import DatasetFolder, open_folder
from tood.data.output_folder import require_free, require_sources_elsewhere
from tood.data.readable import without_unreadable
from tood.data.splits import load_split, resolve_split
from tood.errors import ToodError
from tood.file_identity import FileIdentity, file_identity


@dataclass(frozen=True)
class SplitReport:
    """What was written.

    Attributes:
        out: the new folder.
        format: `coco`, `yolo` or `voc`, as the dataset was.
        images, boxes: numbers by the new splits.
        class_images: for each class its name and the number of images with it in each of the new splits.
        notes: a sentence for each thing that could not be divided as wished or is not carried over.
    """

    out: Path
    format: str
    images: dict[str, int]
    boxes: dict[str, int]
    class_images: tuple[tuple[str, tuple[int, ...]], ...]
    notes: tuple[str, ...]


def split_dataset(
    root: str | Path,
    out: str | Path,
    *,
    val: float = 0.2,
    test: float = 0.0,
    split: str | None = None,
    exif: Exif = "auto",
    seed: int = 0,
    transfer: ImageTransfer = ImageTransfer.HARDLINK,
    overwrite: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> SplitReport:
    """Divide the images of one split into `train`, `val` and, if wanted, `test`, in a new folder of the same format.

    The same dataset and seed give the same splits.

    Args:
        root: the dataset, as for `load_dataset`.
        out: folder to write, as for `convert_dataset`.
        val, test: shares of the images.
        split: the one to divide; None takes the only one.
        exif: as for `load_dataset`.
        seed: of the draw.
        transfer, overwrite, progress: as for `convert_dataset`.

    Raises:
        ToodError: shares that leave nothing, several splits and none named, too few images, a dataset that does not
            load, or a folder that cannot be written.
        StoppedError: after SIGINT, SIGTERM or SIGHUP; `out` is as it was.
    """
    if not (0 <= val < 1 and 0 <= test < 1 and 0 < val + test < 1):
        raise ToodError(f"the shares are val {val:g} and test {test:g}: give numbers that leave some for training")
    if seed < 0:
        raise ToodError(f"seed is {seed}: expected 0 or more")
    source, target = Path(root), Path(out)
    old = require_free(source, target, overwrite)
    folder = open_folder(source)
    dataset = _load(folder, split, exif)
    if old is not None:
        require_sources_elsewhere(folder, [dataset], target)
    (dataset,), unreadable = without_unreadable([dataset])
    shares = {"train": 1 - val - test, "val": val, "test": test}
    names = [name for name, share in shares.items() if share > 0]
    # What is one file under several names or ids goes to one part.
    files = _files(dataset)
    if int(files.max()) + 1 < len(names):
        raise ToodError(f"{root}: {counted(len(dataset.images), 'image')} cannot be divided into {' and '.join(names)}")
    present = _present(dataset)
    order = np.argsort(files, kind="stable")
    firsts = np.flatnonzero(np.diff(files[order], prepend=-1))
    present_in_file = present if len(firsts) == len(files) else np.logical_or.reduceat(present[order], firsts)
    chosen = stratify(present_in_file, [shares[name] for name in names], seed)[files]
    parts = [
        replace(
            dataset,
            split=name,
            images=dataset.columns.take(np.flatnonzero(chosen == number)),
        )
        for number, name in enumerate(names)
    ]
    written = write_datasets(parts, target, dataset.format, transfer, progress, old)
    counts = np.stack([present[chosen == number].sum(axis=0) for number in range(len(names))], axis=1)
    rows = tuple(zip(dataset.class_names, map(tuple, counts.tolist()), strict=True))
    notes = (*_missing(rows, names), *unreadable, *written.lost)
    return SplitReport(target, dataset.format, written.images, written.boxes, rows, notes)


def stratify(present: NDArray[np.bool_], shares: Sequence[float], seed: int) -> NDArray[np.int64]:
    """Deal images out so that every class is shared out as the images are.

    Iterative stratification (Sechidis, Tsoumakas, Vlahavas, "On the stratification of multi-label data", ECML 2011):
    class by class, the one with the fewest images left first, each of its images goes where most of that class is
    still wanted. One image of every class that has as many images as there are parts is wanted in each part, so rare
    classes make the smaller parts somewhat larger than their share; a class of fewer images is wanted in the first.

    Args:
        present: [I, C] bool, whether an image shows a class.
        shares: of each part, summing to 1; the first one is what is learned from.
        seed: decides which of equal images goes where.

    Returns:
        [I] int64, the part of each image; every part has an image if there are as many.
    """
    rng = np.random.default_rng(seed)
    images, parts = len(present), len(shares)
    order = rng.permutation(images)
    present = present[order]
    totals = present.sum(axis=0)
    wanted = totals[:, None] * np.array(shares)  # [C, P]
    enough = (totals >= parts)[:, None]
    wanted[:, 1:] = np.where(enough, np.maximum(wanted[:, 1:], 1), 0)
    wanted[:, 0] = totals - wanted[:, 1:].sum(axis=1)
    room = np.maximum(images * np.array(shares), 1)
    part = np.full(images, -1, np.int64)
    remaining = totals.copy()
    while (left := part < 0).any() and remaining.any():
        # Of equally many left the class that had fewest: where there is but one image, it is to be learned from.
        rarest = int(np.lexsort((totals, np.where(remaining > 0, remaining, images + 1)))[0])
        for image in np.flatnonzero(left & present[:, rarest]).tolist():
            # Most wanted of this class; among equals, where most images are still wanted.
            chosen = max(range(parts), key=lambda p: (round(wanted[rarest, p], 9), round(room[p], 9)))
            part[image] = chosen
            wanted[present[image], chosen] -= 1
            room[chosen] -= 1
            remaining -= present[image]
    for image in np.flatnonzero(part < 0).tolist():  # nothing on them
        part[image] = int(room.argmax())
        room[part[image]] -= 1
    _spread(present, part, parts)
    for number in range(parts):
        if not (part == number).any():
            part[np.flatnonzero(part == np.bincount(part).argmax())[-1]] = number
    found = np.empty(images, np.int64)
    found[order] = part
    return found


def _spread(present: NDArray[np.bool_], part: NDArray[np.int64], parts: int) -> None:
    """Moves images into parts that lack one of their classes, where that takes no class away from another part.

    Dealt out for its rarest class, an image takes all its others along: the usual may all go to one part.
    """
    counts = np.stack([present[part == number].sum(axis=0) for number in range(parts)])  # [P, C]
    for label in np.argsort(counts.sum(axis=0), kind="stable").tolist():
        if counts[:, label].sum() < parts:
            continue
        for lacking in np.flatnonzero(counts[:, label] == 0).tolist():
            spare = [
                image
                for image in np.flatnonzero(present[:, label]).tolist()
                if (counts[part[image], present[image]] >= 2).all()
            ]
            if spare:
                moved = min(spare, key=lambda image: int(present[image].sum()))
                counts[part[moved]] -= present[moved]
                counts[lacking] += present[moved]
                part[moved] = lacking


def _load(folder: DatasetFolder, split: str | None, exif: Exif) -> DetectionDataset:
    root = folder.root
    annotated = [name for name, info in folder.splits.items() if info.annotated]
    if split is None and len(annotated) != 1:
        told = f"has the splits {', '.join(annotated)} already" if annotated else "has no annotations"
        raise ToodError(f"{root}: {told}; name the one to divide with --split" if annotated else f"{root}: {told}")
    dataset = load_split(folder, resolve_split(folder, split or annotated[0]), exif=exif, keep_going=True)
    if not dataset.annotated:
        raise ToodError(f"{root}: split {dataset.split!r} has no annotations to divide")
    return dataset


def _present(dataset: DetectionDataset) -> NDArray[np.bool_]:
    """[I, C] whether an image has a box of a class; crowds do not count, they are not learned from."""
    images = dataset.columns
    use = ~images.boxes.crowd
    present = np.zeros((len(images), len(dataset.categories)), np.bool_)
    present[images.image_at[use], images.boxes.labels[use]] = True
    return present


def _files(dataset: DetectionDataset) -> NDArray[np.int64]:
    """[I] a number for the file of each image, equal where two are one; counted in the order of the images."""
    numbers: dict[FileIdentity, int] = {}
    found = (numbers.setdefault(file_identity(path), len(numbers)) for path in dataset.columns.paths)
    return np.fromiter(found, np.int64, len(dataset))


def _missing(rows: Sequence[tuple[str, tuple[int, ...]]], names: Sequence[str]) -> list[str]:
    """A sentence for each split that lacks classes which the dataset has."""
    told = []
    for number, name in enumerate(names):
        lacking = [label for label, counts in rows if sum(counts) and not counts[number]]
        if lacking:
            some = ", ".join(lacking[:5]) + (f" and {len(lacking) - 5} more" if len(lacking) > 5 else "")
            told.append(f"{name}: has no image of {some}: too few images show it")
    return told
