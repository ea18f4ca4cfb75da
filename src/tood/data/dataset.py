"""What every dataset format is read into: categories, image records, and the problems met on the way."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Literal

from tood.choices import Exif
from tood.data.notes import PictureNotes
from tood.data.records import ImageRecord, ImageRecords
from tood.errors import ToodError

__all__ = ["Category", "DetectionDataset", "ImageRecord", "ImageRecords", "Problem", "Severity"]

Severity = Literal["error", "warning", "note"]


@dataclass(frozen=True)
class Category:
    """One class: `id` is the number in the file (COCO's are not contiguous), `name` what people call it."""

    id: int
    name: str


@dataclass(frozen=True)
class Problem:
    """Something found in a dataset.

    Attributes:
        kind: short machine-readable name, such as `box_dropped`.
        file: file in which it was found (annotation file or image).
        message: one sentence for a person.
        image_id, annotation_id: where it was found, if known.
        severity: `error` (training or evaluating would stop at it), `warning` (mended while loading),
            `note` (worth knowing, nothing wrong).
    """

    kind: str
    file: str
    message: str
    image_id: int | None = None
    annotation_id: int | None = None
    severity: Severity = "error"

    @classmethod
    def unreadable(cls, path: Path, error: ToodError) -> Problem:
        """Of an image file that is missing or cannot be read, with what is said of it."""
        kind = "image_unreadable" if path.exists() else "image_missing"
        return cls(kind, str(path), str(error).removeprefix(f"{path}: "))

    def __str__(self) -> str:
        where = [self.file]
        if self.image_id is not None:
            where.append(f"image {self.image_id}")
        if self.annotation_id is not None:
            where.append(f"annotation {self.annotation_id}")
        return f"{', '.join(where)}: {self.message}"


@dataclass(frozen=True, eq=False)
class DetectionDataset:
    """One split of a dataset.

    Attributes:
        root: the folder (or file) that was named.
        split: name of the split, as `available_splits` lists it.
        format: `coco`, `yolo` or `voc`.
        categories: the classes; a label is an index into them.
        images: the records, in the order of their ids or of the split's list; whatever sequence is given, they are kept
            as columns.
        problems: what was mended while loading (warnings).
        annotated: False for a split that has images but no annotations (a test set).
        source: file or folder that the split was read from.
        files: other files and folders that it was read from besides its images: label files, lists.
        notes: a sentence for each thing about how the folder was read that a person should know.
        exif: what the dataset itself says that the labels of pictures with an EXIF orientation were made on.
    """

    root: Path
    split: str
    format: str
    categories: tuple[Category, ...]
    images: Sequence[ImageRecord]
    problems: tuple[Problem, ...] = ()
    annotated: bool = True
    source: Path | None = None
    files: Sequence[Path] = ()
    notes: tuple[str, ...] = ()
    exif: Exif = "auto"

    def __post_init__(self) -> None:
        object.__setattr__(self, "images", ImageRecords.of(self.images))

    def __len__(self) -> int:
        return len(self.images)

    @property
    def columns(self) -> ImageRecords:
        """The images' records as columns."""
        assert isinstance(self.images, ImageRecords)
        return self.images

    @cached_property
    def picture_notes(self) -> PictureNotes:
        """What is found in the pictures when they are decoded, each told once however often the dataset is read."""
        return PictureNotes(self.columns.ids, self.columns.paths)

    @property
    def class_names(self) -> tuple[str, ...]:
        """Name of every class, indexed by label."""
        return tuple(category.name for category in self.categories)

    @property
    def crowds_are_difficult(self) -> bool:
        """Whether the records' `crowd` marks VOC's difficult objects instead of COCO's crowds."""
        return self.format == "voc"

    @property
    def box_count(self) -> int:
        """Number of boxes over all images, crowds among them."""
        return len(self.columns.boxes)

    @property
    def object_count(self) -> int:
        """Number of boxes over all images that are learned and measured: crowds are neither."""
        return len(self.columns.boxes) - self.crowd_count

    @property
    def crowd_count(self) -> int:
        """Number of boxes over all images that stand for groups, or are difficult."""
        return int(self.columns.boxes.crowd.sum())

    def digest(self) -> str:
        """SHA-256 of what is learned from: the images' names and sizes, their boxes and labels."""
        sha = hashlib.sha256(repr([category.name for category in self.categories]).encode())
        images, boxes = self.columns, self.columns.boxes
        rows = zip(
            images.names(), images.sizes.tolist(), images.turned.tolist(), pairwise(images.edges.tolist()), strict=True
        )
        for name, (width, height), turned, (start, end) in rows:
            sha.update(f"{name}\0{width}\0{height}\0".encode("utf-8", "surrogatepass"))
            if turned:
                sha.update(b"turned\0")
            for values in (boxes.boxes, boxes.labels, boxes.crowd):
                sha.update(values[start:end].tobytes())
        return sha.hexdigest()

    def problem_counts(self) -> dict[str, int]:
        """How many problems of each kind, most frequent first."""
        counts: dict[str, int] = {}
        for problem in self.problems:
            counts[problem.kind] = counts.get(problem.kind, 0) + 1
        return dict(sorted(counts.items(), key=lambda item: -item[1]))


def require_same_categories(first: DetectionDataset, second: DetectionDataset) -> None:
    """Make sure that a label means the same class in two splits.

    Raises:
        ToodError: if names or order of the classes differ.
    """
    if first.class_names == second.class_names:
        return
    missing = [name for name in first.class_names if name not in second.class_names]
    added = [name for name in second.class_names if name not in first.class_names]
    what = f"only in {first.split}: {missing[:5]}; only in {second.split}: {added[:5]}"
    if not missing and not added:
        what = "the same names in another order"
    raise ToodError(
        f"{second.root}: the classes of split {second.split!r} differ from those of {first.split!r} in {first.root} "
        f"({what}); give both the same categories"
    )
