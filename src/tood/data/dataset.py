"""What every dataset format is read into: categories, image records, and the problems met on the way."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from tood.choices import Exif
from tood.data.notes import PictureNotes
from tood.errors import ToodError

Severity = Literal["error", "warning", "note"]


@dataclass(frozen=True)
class Category:
    """One class: `id` is the number in the file (COCO's are not contiguous), `name` what people call it."""

    id: int
    name: str


@dataclass(frozen=True, eq=False)
class ImageRecord:
    """One image with its ground truth; the file itself is not open.

    Attributes:
        id: number of the image, unique in its split.
        path: the image file.
        width, height: pixels as stored in the file or, where `turned`, as its EXIF orientation turns it.
        boxes: [G, 4] float32, x1 y1 x2 y2 in pixels of that picture, inside it and of positive area.
        labels: [G] int64, index into the dataset's `categories`.
        crowd: [G] bool, True where the box stands for a group (in VOC: is `difficult`): ignored, never a positive.
            Which of the two it is tells `DetectionDataset.crowds_are_difficult`; evaluation treats them differently.
        areas: [G] float64, the annotation's area in square pixels (COCO's `area`, of the mask; else the box's).
        annotation_ids: [G] int64, unique in the split.
        file_name: name inside the split's image folder, with sub-folders; empty means `path.name`.
        turned: whether the picture is to be turned as its EXIF orientation says, because its labels were made so.
        size_from_file: whether width and height are of the file's header, as the labels tell none.
        orientation: of the file's EXIF, 1 to 8, where its header was read for its size; None if it was not.
    """

    id: int
    path: Path
    width: int
    height: int
    boxes: NDArray[np.float32]
    labels: NDArray[np.int64]
    crowd: NDArray[np.bool_]
    areas: NDArray[np.float64]
    annotation_ids: NDArray[np.int64]
    file_name: str = ""
    turned: bool = False
    size_from_file: bool = False
    orientation: int | None = None

    @property
    def name(self) -> str:
        """Name inside the split's image folder, with sub-folders."""
        return self.file_name or self.path.name

    def select(self, keep: NDArray[np.bool_]) -> ImageRecord:
        """The same image with only some of its boxes; `keep` is [G] bool."""
        return replace(
            self,
            boxes=self.boxes[keep],
            labels=self.labels[keep],
            crowd=self.crowd[keep],
            areas=self.areas[keep],
            annotation_ids=self.annotation_ids[keep],
        )


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
        images: the records, in the order of their ids or of the split's list.
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
    images: tuple[ImageRecord, ...]
    problems: tuple[Problem, ...] = ()
    annotated: bool = True
    source: Path | None = None
    files: tuple[Path, ...] = ()
    notes: tuple[str, ...] = ()
    exif: Exif = "auto"

    def __len__(self) -> int:
        return len(self.images)

    @cached_property
    def picture_notes(self) -> PictureNotes:
        """What is found in the pictures when they are decoded, each told once however often the dataset is read."""
        return PictureNotes(self.images)

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
        return sum(len(image.boxes) for image in self.images)

    @property
    def object_count(self) -> int:
        """Number of boxes over all images that are learned and measured: crowds are neither."""
        return sum(int((~image.crowd).sum()) for image in self.images)

    def digest(self) -> str:
        """SHA-256 of what is learned from: the images' names and sizes, their boxes and labels."""
        sha = hashlib.sha256(repr([category.name for category in self.categories]).encode())
        for image in self.images:
            sha.update(f"{image.name}\0{image.width}\0{image.height}\0".encode())
            if image.turned:
                sha.update(b"turned\0")
            for values in (image.boxes, image.labels, image.crowd):
                sha.update(np.ascontiguousarray(values).tobytes())
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
