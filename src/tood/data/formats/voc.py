"""Pascal VOC folders: an xml for each image, in `Annotations/` or beside it, and lists that say what is in which split.

Conventions:
- VOC counts pixels from 1 and its corners are inside the box, so `xmin ymin xmax ymax` become x1 = xmin - 1,
  y1 = ymin - 1, x2 = xmax, y2 = ymax. A box whose xmax <= xmin or ymax <= ymin is taken as a click without a drag: it
  has no area and is dropped.
- `difficult` objects are the records' `crowd`: they count neither as right nor as wrong, which evaluation judges by IoU
  (`DetectionDataset.crowds_are_difficult`), and in training are never a positive.
- The classes are the names of all splits together, in alphabetical order, ids from 1; image ids number all images of
  all splits together, by name. So splits agree with one another.
- Where nothing divides the images into splits, every annotated image is in one split `all`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np

from tood.data.columns import PathColumn
from tood.data.dataset import Category, DetectionDataset, ImageRecord, ImageRecords, Problem
from tood.data.exif import size_that_holds
from tood.data.formats.folder import (
    SplitInfo,
    box_areas,
    clean_boxes,
    clip_reason,
    drop_reason,
)
from tood.data.formats.voc_annotations import VocAnnotations
from tood.data.formats.voc_layout import VocLayout, layout_below, voc_layout
from tood.data.formats.voc_names import FoundPicture, spelled
from tood.data.formats.voc_xml import VocAnnotation, no_annotation
from tood.errors import ToodError


@dataclass(frozen=True)
class VocFolder:
    """A folder in the layout of Pascal VOC: an xml file for each picture, and lists of names for the splits."""

    root: Path
    layout: VocLayout
    format: str = "voc"
    missing: Mapping[str, str] = field(default_factory=dict)

    @property
    def splits(self) -> Mapping[str, SplitInfo]:
        """The splits by name, in a steady order."""
        return self.layout.splits

    @cached_property
    def _numbers(self) -> dict[str, int]:
        wanted = sorted({name for names in self.layout.names.values() for name in names})
        return {name: number for number, name in enumerate(wanted, start=1)}

    @cached_property
    def _rows(self) -> dict[str, int]:
        """The row in `_annotations` of each name that has an xml."""
        return {name: row for row, name in enumerate(name for name in self._numbers if name in self.layout.xml_files)}

    @cached_property
    def _annotations(self) -> VocAnnotations:
        """Every xml that any split names."""
        return VocAnnotations.of(self.layout.xml_files[name] for name in self._rows)

    @cached_property
    def _annotated(self) -> frozenset[str]:
        return frozenset(map(spelled, self.layout.xml_files))

    def read(self, split: str, images_required: bool) -> DetectionDataset:
        """See `DatasetFolder.read`; sizes come from the xml files, or from the images where those have none."""
        info, listed = self.splits[split], self.layout.names[split]
        class_names = sorted(self._annotations.class_names)
        problems = [
            Problem("duplicate_file", str(info.source), f"names {name!r} twice: taken once", severity="warning")
            for name in _repeated(listed)
        ]
        owners: dict[str, str] = {}
        images = ImageRecords.of(self._records(split, images_required, owners, problems))
        if images_required and not self.layout.listed:
            problems.extend(self._unannotated(split, set(owners)))
        categories = tuple(Category(number, name) for number, name in enumerate(class_names, start=1))
        xml_files = (self.layout.xml_files[name] for name in listed if name in self.layout.xml_files)
        return DetectionDataset(
            self.root,
            split,
            "voc",
            categories,
            images,
            tuple(problems),
            info.annotated,
            info.source,
            PathColumn.of(xml_files),
            self.layout.notes if split == next(iter(self.splits)) else (),
        )

    def _records(
        self, split: str, images_required: bool, owners: dict[str, str], problems: list[Problem]
    ) -> Iterator[ImageRecord]:
        """The records of a split; notes in `owners` whose each picture is, in `problems` what is wrong."""
        info = self.splits[split]
        labels = {name: label for label, name in enumerate(sorted(self._annotations.class_names))}
        next_box = 1
        for name in dict.fromkeys(self.layout.names[split]):
            number, row = self._numbers[name], self._rows.get(name)
            annotation = None if row is None else self._annotations[row]
            if annotation is None and info.annotated:
                message = f"names {name!r}, but there is no annotation {name}.xml"
                problems.append(Problem("annotation_missing", str(info.source), message, number))
                continue
            annotation = annotation or no_annotation()
            problems.extend(_with_image(problem, number) for problem in annotation.problems)
            found = self.layout.pictures.find(name, annotation.file_name, self._annotated)
            xml = str(self.layout.xml_files.get(name, found.path or name))
            if images_required:
                problems.extend(self._picture_problems(name, xml, number, found, owners))
            path = found.path or self.layout.pictures.folders[0] / (annotation.file_name or f"{name}.jpg")
            try:
                size = annotation.size or size_that_holds(path, annotation.boxes)
            except ToodError as error:
                problems.append(Problem.unreadable(path, error))
                continue
            record = _record(number, path, found.file_name, size, annotation, labels, next_box, xml, problems)
            next_box += len(record.boxes)
            yield record

    def _picture_problems(
        self, name: str, xml: str, number: int, found: FoundPicture, owners: dict[str, str]
    ) -> list[Problem]:
        """What is wrong with the picture found for a name; notes in `owners` whose it is."""
        if found.path is None:
            there = ", ".join(map(str, self.layout.pictures.folders))
            message = found.doubt or f"there is no image file of this name in {there}"
            return [Problem("image_missing", xml if found.doubt else name, message, number)]
        other = owners.setdefault(str(found.path), name)
        if other != name:
            message = f"{found.path} would be its picture and that of {other!r}: only one of the two can be right"
            return [Problem("duplicate_file", xml, message, number)]
        return [Problem("image_chosen", xml, found.doubt, number, severity="warning")] if found.doubt else []

    def _unannotated(self, split: str, used: set[str]) -> list[Problem]:
        """A warning where pictures of a split without a list have no xml: they are in no split, and may be meant to."""
        folder = self.splits[split].source
        left = [
            path
            for path in self.layout.pictures.paths()
            if str(path) not in used and (len(self.splits) == 1 or folder in path.parents)
        ]
        if not left:
            return []
        message = f"{len(left)} of the pictures have no annotation and are left out, such as {left[0]}"
        return [Problem("unannotated", str(folder), message, severity="warning")]


def find_voc(root: Path) -> VocFolder | None:
    """The VOC dataset in a folder with one of annotations, or in its only sub-folder with an `Annotations`."""
    layout = voc_layout(root) if root.is_dir() else None
    return None if layout is None else VocFolder(root, layout)


def find_voc_below(root: Path) -> VocFolder | None:
    """The VOC dataset below a folder that no other format explains, or with its xml files beside their images."""
    layout = layout_below(root) if root.is_dir() else None
    return None if layout is None else VocFolder(root, layout)


def _repeated(names: Iterable[str]) -> list[str]:
    seen: set[str] = set()
    twice: dict[str, None] = {}
    for name in names:
        if name in seen:
            twice[name] = None
        seen.add(name)
    return list(twice)


def _with_image(problem: Problem, image_id: int) -> Problem:
    return Problem(problem.kind, problem.file, problem.message, image_id, None, problem.severity)


def _record(
    number: int,
    path: Path,
    file_name: str,
    size: tuple[int, int],
    annotation: VocAnnotation,
    labels: Mapping[str, int],
    first_id: int,
    file: str,
    problems: list[Problem],
) -> ImageRecord:
    """The record of one image; `first_id` is the annotation id of its first box."""
    given = annotation.boxes
    clicks = (given[:, 2] <= given[:, 0]) | (given[:, 3] <= given[:, 1])
    corners = given - np.array([1.0, 1.0, 0.0, 0.0])  # counted from 1, corners inside -> x1 y1 x2 y2
    clean = clean_boxes(np.where(clicks[:, None], given, corners), np.full((len(given), 2), size, np.float64))
    kept = clean.kept & ~clicks
    for row in np.flatnonzero(~kept).tolist():
        shown = given[row] if clicks[row] else corners[row]
        message = drop_reason(shown, bool(clean.outside[row]), size)
        problems.append(Problem("box_dropped", file, f"{annotation.names[row]} {message}", number, severity="warning"))
    for row in np.flatnonzero(clean.clipped & kept).tolist():
        message = clip_reason(corners[row], size)
        problems.append(Problem("box_clipped", file, f"{annotation.names[row]} {message}", number, severity="warning"))
    boxes = clean.boxes[kept]
    return ImageRecord(
        id=number,
        path=path,
        width=size[0],
        height=size[1],
        boxes=boxes,
        labels=np.array([labels[name] for name in annotation.names], np.int64).reshape(-1)[kept],
        crowd=annotation.difficult[kept],
        areas=box_areas(boxes),
        annotation_ids=np.arange(first_id, first_id + len(boxes), dtype=np.int64),
        file_name=file_name,
        size_from_file=annotation.size is None,
    )
