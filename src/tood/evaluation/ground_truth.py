"""The annotations that detections are measured against."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import TypeAdapter, ValidationError
from typing_extensions import TypedDict

from tood.data import DetectionDataset
from tood.data.formats.coco_columns import CocoAnnotations
from tood.data.formats.coco_content import make_plain
from tood.data.formats.coco_rows import CocoRows, read_rows
from tood.data.formats.folder import annotated_areas, valid_areas
from tood.errors import ToodError
from tood.evaluation.json_file import is_id, read_json

# A larger file is not read whole.
_LARGE = 1 << 25


@dataclass(frozen=True)
class GroundTruth:
    """Annotations as columns.

    Attributes:
        source: file or dataset they come from, for messages.
        image_ids: [I] int64, the images that count.
        categories: class name by category id.
        annotation_image_ids, annotation_category_ids: [A] int64.
        boxes: [A, 4] float64, x y width height in pixels of the original image.
        areas: [A] float64, the annotation's area in square pixels (of the segment, where there is one): it decides
            whether an object is small, medium or large. One that is missing or no positive number is the box's.
        crowd: [A] bool; detections on a crowd are neither right nor wrong.
        crowds_are_difficult: whether `crowd` marks VOC's difficult objects instead: judged by IoU as any object, one
            excuses the one detection that matches it best, where a crowd excuses all that lie within it.
    """

    source: str
    image_ids: NDArray[np.int64]
    categories: Mapping[int, str]
    annotation_image_ids: NDArray[np.int64]
    annotation_category_ids: NDArray[np.int64]
    boxes: NDArray[np.float64]
    areas: NDArray[np.float64]
    crowd: NDArray[np.bool_]
    crowds_are_difficult: bool = False

    @property
    def unique_names(self) -> dict[int, str]:
        """Class name by category id; a name that occurs twice carries its id."""
        names = list(self.categories.values())
        return {i: name if names.count(name) == 1 else f"{name} ({i})" for i, name in self.categories.items()}

    @staticmethod
    def from_dataset(dataset: DetectionDataset) -> GroundTruth:
        """A dataset's annotations; of a COCO folder those of its json as they stand there, unclipped, none dropped."""
        image_ids, own = dataset.columns.ids, dataset.columns.boxes
        if dataset.format == "coco" and dataset.source is not None and dataset.source.suffix == ".json":
            return GroundTruth.from_json(dataset.source).only(image_ids)
        ids = np.array([category.id for category in dataset.categories], np.int64)
        corners = own.boxes.astype(np.float64)
        corners[:, 2:] -= corners[:, :2]  # x y w h
        return GroundTruth(
            source=f"{dataset.root} ({dataset.split})",
            image_ids=image_ids,
            categories={category.id: category.name for category in dataset.categories},
            annotation_image_ids=image_ids.repeat(dataset.columns.counts),
            annotation_category_ids=ids[own.labels] if len(ids) else own.labels,
            boxes=corners,
            areas=own.areas,
            crowd=own.crowd,
            crowds_are_difficult=dataset.crowds_are_difficult,
        )

    @staticmethod
    def from_json(path: Path | str) -> GroundTruth:
        """A COCO annotations json.

        Raises:
            ToodError: if it is missing, no json, or lacks what an evaluation needs.
        """
        path = Path(path)
        if (found := _sound_rows(path)) is not None and found.annotations is not None:
            return _from_rows(found, found.annotations, str(path))
        content = _parse(path)
        try:
            make_plain(content, path)
            return _from_content(content, str(path))
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
            raise ToodError(
                f"the annotations file {path} is not in COCO's format ({type(error).__name__}: {error}): "
                "`tood data check` says where"
            ) from error

    def numbered(self) -> GroundTruth:
        """This ground truth with images and categories numbered from 0, in the order of their ids."""
        images, categories = np.unique(self.image_ids), sorted(self.categories)
        return replace(
            self,
            image_ids=np.arange(len(images)),
            categories={number: self.categories[own] for number, own in enumerate(categories)},
            annotation_image_ids=np.searchsorted(images, self.annotation_image_ids),
            annotation_category_ids=np.searchsorted(np.array(categories, np.int64), self.annotation_category_ids),
        )

    def only(self, image_ids: NDArray[np.int64]) -> GroundTruth:
        """The ground truth of these images alone."""
        keep = np.isin(self.annotation_image_ids, image_ids)
        if keep.all():
            return replace(self, image_ids=image_ids)
        return GroundTruth(
            self.source,
            image_ids,
            self.categories,
            self.annotation_image_ids[keep],
            self.annotation_category_ids[keep],
            self.boxes[keep],
            self.areas[keep],
            self.crowd[keep],
            self.crowds_are_difficult,
        )


def _sound_rows(path: Path) -> CocoRows | None:
    """What a file holds; None if something in it is wrong for a dataset, which may do to measure by."""
    try:
        rows = read_rows(path)
    except ToodError:
        if path.is_file() and path.stat().st_size > _LARGE:
            raise
        return None
    problems = (*rows.image_problems, *rows.annotation_problems)
    return None if any(one.severity == "error" for one in problems) else rows


def _from_rows(found: CocoRows, rows: CocoAnnotations, source: str) -> GroundTruth:
    """As `_from_content`, of a file in which nothing is wrong."""
    categories = {category.id: category.name for category in found.categories}
    # Annotations of an image or category that is not listed count for nobody, as in pycocotools.
    listed = np.isin(rows.image_ids, found.images.ids) & np.isin(rows.category_ids, np.array(list(categories)))
    if not listed.all():
        rows = rows.select(listed)
    return GroundTruth(
        source=source,
        image_ids=found.images.ids,
        categories=categories,
        annotation_image_ids=rows.image_ids,
        annotation_category_ids=rows.category_ids,
        boxes=rows.boxes,
        areas=valid_areas(rows.areas, _areas(rows.boxes)),
        crowd=rows.crowd,
    )


class _Annotation(TypedDict, total=False):
    id: Any
    image_id: Any
    category_id: Any
    bbox: Any
    area: Any
    iscrowd: Any


class _Image(TypedDict, total=False):
    id: Any
    file_name: Any
    width: Any
    height: Any


class _File(TypedDict, total=False):
    images: list[_Image]
    annotations: list[_Annotation]
    categories: Any


# Parses only what anyone here wants: masks, nine tenths of COCO's files, never become Python objects.
_FILE = TypeAdapter(_File)


def _parse(path: Path) -> Any:
    try:
        return _FILE.validate_json(path.read_bytes())
    except (OSError, ValidationError):
        # Broken, or of an unusual form: the slow way reads it, or says what is wrong.
        return read_json(path, "annotations", "get or write it again")


def _from_content(content: dict[str, Any], source: str) -> GroundTruth:
    category_ids = _ids(content["categories"], "id").tolist()
    categories = {i: str(row["name"]) for i, row in zip(category_ids, content["categories"], strict=True)}
    image_ids = _ids(content["images"], "id")
    # Annotations of an image or category that is not listed count for nobody, as in pycocotools.
    listed = set(image_ids.tolist())
    annotations = [
        a
        for a in content.get("annotations", [])
        if a["image_id"] in listed and a["category_id"] in categories and "bbox" in a
    ]
    boxes = np.array([a["bbox"] for a in annotations], np.float64).reshape(-1, 4)
    return GroundTruth(
        source=source,
        image_ids=image_ids,
        categories=categories,
        annotation_image_ids=_ids(annotations, "image_id"),
        annotation_category_ids=_ids(annotations, "category_id"),
        boxes=boxes,
        areas=annotated_areas((a.get("area") for a in annotations), _areas(boxes)),
        crowd=np.array([bool(a.get("iscrowd", 0)) for a in annotations], np.bool_),
    )


def _areas(boxes: NDArray[np.float64]) -> NDArray[np.float64]:
    """[A] areas of boxes [A, 4] x y width height, of whatever numbers."""
    with np.errstate(over="ignore", invalid="ignore"):
        return np.asarray(boxes[:, 2] * boxes[:, 3])


def _ids(rows: list[dict[str, Any]], key: str) -> NDArray[np.int64]:
    """[A] int64, exact.

    Raises:
        ValueError: if one is no whole number.
    """
    values = [row[key] for row in rows]
    plain = set(map(type, values)) <= {int} and max(map(abs, values), default=0) < 2**63
    for value in () if plain else values:
        if not is_id(value):
            raise ValueError(f"{key} is {value!r:.60}, not a whole number of 64 bits")
    return np.array(values if plain else [int(value) for value in values], np.int64)
