"""A COCO json read as a stream into flat arrays, with what is wrong in its single rows.

Rows come in pieces of a few thousand. Where all of a piece are as usual it becomes columns at once (`coco_columns`);
else its rows are looked at one by one, here, and those that can be used become the same columns.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

import msgspec
import numpy as np
from typing_extensions import Self

from tood.data.dataset import Category, Problem
from tood.data.formats.coco_columns import (
    LARGEST_ID,
    LARGEST_SIDE,
    CocoAnnotations,
    CocoImages,
    usual_annotations,
    usual_images,
)
from tood.data.formats.coco_content import IDS, SIDES, add_boxes, make_whole
from tood.data.formats.folder import told_areas
from tood.data.formats.json_stream import BrokenJsonError, JsonStream, NoJsonObjectError
from tood.errors import ToodError

Columns = TypeVar("Columns", CocoImages, CocoAnnotations)
_BLOCK = 1 << 20
# No key of that name.
_MISSING = object()


class _Identified(msgspec.Struct, gc=False):
    id: int | None = None


_IDENTIFIED = msgspec.json.Decoder(list[_Identified])


@dataclass(frozen=True, eq=False)
class CocoRows:
    """What a json holds, and the problems that its single rows show.

    Attributes:
        categories: the classes, by their ids.
        images, annotations: the rows that can be used; no annotations where it has no such key.
        image_problems, annotation_problems: of all before the annotations, and of those.
    """

    categories: tuple[Category, ...]
    images: CocoImages
    annotations: CocoAnnotations | None
    image_problems: Sequence[Problem]
    annotation_problems: Sequence[Problem]


def read_rows(path: Path) -> CocoRows:
    """Read a file, of which never more than some rows are in memory as objects.

    Raises:
        ToodError: if it cannot be read, is no json, or no COCO dataset at all.
    """
    try:
        with path.open("rb") as file:
            images, annotations, categories = _sections(JsonStream(file), path)
    except FileNotFoundError:
        raise ToodError(f"{path}: no such file") from None
    except OSError as error:
        raise ToodError(f"{path}: cannot be read ({error.strerror})") from None
    except NoJsonObjectError:
        raise ToodError(
            f"{path}: is json, but no COCO dataset: an object with 'images', 'annotations' and 'categories'"
        ) from None
    except BrokenJsonError as error:
        if _is_blank(path):
            raise ToodError(f"{path}: is empty, not a COCO json") from None
        raise ToodError(f"{path}: broken json: {error}") from None
    before: list[Problem] = []
    if isinstance(annotations, _Annotations) and annotations.numbered:
        message = f"{annotations.numbered} of its annotations have no id: numbered in their order"
        before.append(Problem("id_numbered", str(path), message, severity="warning"))
    classes = read_categories(categories, path, before)
    if not isinstance(images, _Images):
        raise _no_list(path, "images", images)
    before += images.problems()
    joined = CocoImages.of(images.parts)
    if annotations is None:
        return CocoRows(classes, joined, None, before, [])
    if not isinstance(annotations, _Annotations):
        raise _no_list(path, "annotations", annotations)
    return CocoRows(classes, joined, CocoAnnotations.of(annotations.parts), before, annotations.problems())


def _sections(stream: JsonStream, path: Path) -> tuple[Any, Any, Any]:
    """Images, annotations, categories: the rows of those that are lists, else what stands there, None for nothing."""
    # Of a key that is there twice the last value counts.
    images, annotations, categories = _MISSING, None, None
    for key in stream.sections():
        if key == "images":
            images = _Images(path).read(stream) if stream.is_list() else stream.glimpse()
        elif key == "annotations":
            annotations = _Annotations(path).read(stream) if stream.is_list() else stream.glimpse()
        elif key == "categories" and stream.is_list():
            categories = [row for piece in stream.pieces() for row in stream.parse(piece)]
        elif key == "categories":
            categories = stream.glimpse()
        else:
            stream.skip()
    make_whole(categories, "id")
    return images, annotations, categories


def _no_list(path: Path, key: str, found: object) -> ToodError:
    what = "is missing" if found is _MISSING else f"is {_told(found)}, not a list"
    return ToodError(f"{path}: not a COCO dataset: its {key!r} {what}")


def _is_blank(path: Path) -> bool:
    with path.open("rb") as file:
        text = file.read(_BLOCK).removeprefix(b"\xef\xbb\xbf")
        while not text.strip():
            if not (text := file.read(_BLOCK)):
                return True
    return False


def read_categories(rows: Any, path: Path, problems: list[Problem]) -> tuple[Category, ...]:
    """The classes, by their ids."""
    if not isinstance(rows, list):
        what = "is missing" if rows is None else f"is {_told(rows)}, not a list"
        raise ToodError(f"{path}: not a COCO dataset: its 'categories' {what}")
    found: dict[int, Category] = {}
    names: set[str] = set()
    for number, row in enumerate(rows):
        where = f"categories[{number}]"
        own, name = (row.get("id"), row.get("name")) if isinstance(row, dict) else (None, None)
        if not isinstance(own, int) or not _is_id(own) or not isinstance(name, str) or not name.strip():
            message = f"{where} is {_told(row)}, not an object with a whole number 'id' and a 'name'"
            problems.append(Problem("wrong_type", str(path), message))
        elif own in found:
            problems.append(Problem("duplicate_category_id", str(path), f"category id {own} is there twice"))
        else:
            if name in names:
                message = f"category name {name!r} is there twice, under different ids"
                problems.append(Problem("duplicate_category_name", str(path), message, severity="warning"))
            names.add(name)
            found[own] = Category(own, name)
    return tuple(found[number] for number in sorted(found))


class _Rows(ABC, Generic[Columns]):
    """The rows of a section, as they are read."""

    key: str

    def __init__(self, path: Path) -> None:
        self.parts: list[Columns] = []
        self._path, self._strangers, self._complaints = path, list[Problem](), list[Problem]()
        # What is passed: of all, and of the objects among them.
        self._elements = self._objects = 0

    def read(self, stream: JsonStream) -> Self:
        """All of the list that comes next."""
        for piece in stream.pieces():
            part = self._usual(piece)
            if part is not None:
                self._elements += len(part.ids)
                self._objects += len(part.ids)
            else:
                part = self._odd(self._objects_of(stream.parse(piece)))
            self.parts.append(part)
        return self

    def problems(self) -> list[Problem]:
        """What is wrong in the rows."""
        return self._strangers + self._complaints

    @abstractmethod
    def _usual(self, piece: bytes) -> Columns | None:
        """The columns of rows all of which are as usual."""

    @abstractmethod
    def _odd(self, rows: list[dict[str, Any]]) -> Columns:
        """The columns of those rows that can be used; all others are told."""

    def _objects_of(self, rows: list[Any]) -> list[dict[str, Any]]:
        """The objects of a list; anything else in it is an error."""
        for number, row in enumerate(rows, self._elements):
            if not isinstance(row, dict):
                message = f"{self.key}[{number}] is {_told(row)}, not an object"
                self._strangers.append(Problem("wrong_type", str(self._path), message))
        self._elements += len(rows)
        objects = [row for row in rows if isinstance(row, dict)]
        for key in (*IDS[self.key], *SIDES[self.key]):
            make_whole(objects, key)
        return objects

    def _tell(self, at: int, complaint: str, image_id: Any, own: Any = None) -> None:
        """Something is wrong with the object `at` of those at hand."""
        message = f"{self.key}[{self._objects + at}]: {complaint}"
        image_id, own = (value if _is_id(value) else None for value in (image_id, own))
        self._complaints.append(Problem("wrong_type", str(self._path), message, image_id, own))


class _Images(_Rows[CocoImages]):
    key = "images"

    def _usual(self, piece: bytes) -> CocoImages | None:
        return usual_images(piece)

    def _odd(self, rows: list[dict[str, Any]]) -> CocoImages:
        kept = []
        for at, row in enumerate(rows):
            if (found := _image_complaint(row)) is None:
                kept.append(row)
            else:
                self._tell(at, found, row.get("id"))
        self._objects += len(rows)
        return CocoImages(
            np.array([row["id"] for row in kept], np.int64).reshape(-1),
            [row["file_name"] for row in kept],
            np.array([(row.get("width") or 0, row.get("height") or 0) for row in kept], np.int64).reshape(-1, 2),
        )


class _Annotations(_Rows[CocoAnnotations]):
    """`numbered` of them have no id, and are given one."""

    key = "annotations"

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.numbered = self._computed = 0
        self._largest: int | None = None

    def problems(self) -> list[Problem]:
        if not self._computed:
            return super().problems()
        message = f"{self._computed} of its annotations have no bbox: the enclosing box of their segmentation is taken"
        computed = Problem("box_from_segmentation", str(self._path), message, severity="warning")
        return [*self._strangers, computed, *self._complaints]

    def _usual(self, piece: bytes) -> CocoAnnotations | None:
        return usual_annotations(piece, self._free_ids)

    def _odd(self, rows: list[dict[str, Any]]) -> CocoAnnotations:
        lacking = [row for row in rows if row.get("id") is None]
        for row, number in zip(lacking, self._free_ids(len(lacking), 1 << 99), strict=True):
            row["id"] = number
        self._computed += add_boxes(rows, rows)
        kept = []
        for at, row in enumerate(rows):
            if (found := _annotation_complaint(row)) is None:
                kept.append(row)
            else:
                self._tell(at, found, row.get("image_id"), row.get("id"))
        self._objects += len(rows)
        return CocoAnnotations(
            np.array([row["id"] for row in kept], np.int64).reshape(-1),
            np.array([row["image_id"] for row in kept], np.int64).reshape(-1),
            np.array([row["category_id"] for row in kept], np.int64).reshape(-1),
            np.array([row["bbox"] for row in kept], np.float64).reshape(-1, 4),
            told_areas(row.get("area") for row in kept),
            np.array([bool(row.get("iscrowd")) for row in kept], np.bool_).reshape(-1),
        )

    def _free_ids(self, count: int, largest: int = LARGEST_ID) -> range:
        """So many ids above those of the whole file, which is read once more to know them; none if one is larger."""
        if not count:
            return range(0)
        if self._largest is None:
            self._largest = _largest_id(self._path)
        first = self._largest + self.numbered + 1
        if first + count > largest + 1:
            return range(0)
        self.numbered += count
        return range(first, first + count)


def _largest_id(path: Path) -> int:
    """Of the annotations; 0 if none is above."""
    found = 0
    with path.open("rb") as file:
        stream = JsonStream(file)
        for key in stream.sections():
            if key != "annotations" or not stream.is_list():
                stream.skip()
                continue
            found = 0  # of a key that is there twice the last value counts
            for piece in stream.pieces():
                try:
                    ids: list[Any] = [row.id for row in _IDENTIFIED.decode(piece)]
                except (ValueError, RecursionError):
                    rows = [row for row in stream.parse(piece) if isinstance(row, dict)]
                    make_whole(rows, "id")
                    ids = [row.get("id") for row in rows]
                found = max([found, *(value for value in ids if type(value) is int)])
    return found


def _image_complaint(row: dict[str, Any]) -> str | None:
    if not _is_id(row.get("id")):
        return f"its id is {_told(row.get('id'))}, not a whole number of 64 bits"
    name = row.get("file_name")
    if not isinstance(name, str) or not name.strip() or "\0" in name:
        return f"its file_name is {_told(name)}, not a name"
    if not row.get("width") and not row.get("height"):
        return None
    for side in ("width", "height"):
        value = row.get(side)
        if type(value) is not int or not 1 <= value <= LARGEST_SIDE:
            return f"its {side} is {_told(value)}, not a whole number of pixels"
    return None


def _annotation_complaint(row: dict[str, Any]) -> str | None:
    for key in ("id", "image_id", "category_id"):
        if not _is_id(row.get(key)):
            return f"its {key} is {_told(row.get(key))}, not a whole number of 64 bits"
    box = row.get("bbox")
    if not isinstance(box, list) or len(box) != 4 or not all(_is_number(value) for value in box):
        return f"its bbox is {_told(box)}, not four numbers x y width height"
    area = row.get("area")
    if area is not None and not _is_number(area):
        return f"its area is {_told(area)}, not a number"
    crowd = row.get("iscrowd")
    if crowd is not None and crowd not in (0, 1):
        return f"its iscrowd is {_told(crowd)}, not 0 or 1"
    return None


def _is_id(value: Any) -> bool:
    return type(value) is int and abs(value) <= LARGEST_ID


def _is_number(value: Any) -> bool:
    # Whole numbers too large for a float would raise an OverflowError later.
    return type(value) is float or (type(value) is int and abs(value) <= LARGEST_ID)


def _told(value: Any) -> str:
    """A value for a message, short."""
    if value is None:
        return "missing"
    text = json.dumps(value, default=str)
    return text if len(text) <= 60 else text[:57] + "..."
