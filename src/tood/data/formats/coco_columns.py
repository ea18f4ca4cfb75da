"""A usual COCO json as flat arrays, read as a stream: masks, nine tenths of COCO's files, never become objects."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from tood.data.formats.json_stream import JsonStream, Unusual

LARGEST_ID = (1 << 63) - 1
LARGEST_SIDE = 1 << 24
# Greater whole numbers are refused, though a float may be as large.
_LARGEST_NUMBER = float(1 << 63)


class _Image(msgspec.Struct, gc=False):
    id: int
    file_name: str
    width: int | None = None
    height: int | None = None


class _Annotation(msgspec.Struct, gc=False):
    id: int
    image_id: int
    category_id: int
    bbox: tuple[float, float, float, float]
    area: float | None = None
    iscrowd: int | bool | None = 0


class _Marked(msgspec.Struct, gc=False):
    """What says that an annotation is one of an object."""

    bbox: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    segmentation: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET


_UNMARKED = (msgspec.UNSET, msgspec.UNSET)
_IMAGES = msgspec.json.Decoder(list[_Image])
_ANNOTATIONS = msgspec.json.Decoder(list[_Annotation])
_MARKED = msgspec.json.Decoder(list[_Marked])


@dataclass(frozen=True, eq=False)
class CocoImages:
    """The images: ids [I] int64, file names, sizes [I, 2] int64 (width, height; 0 where not told)."""

    ids: NDArray[np.int64]
    names: Sequence[str]
    sizes: NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class CocoAnnotations:
    """The annotations, in the order of the file.

    Attributes:
        ids, image_ids, category_ids: [A] int64.
        boxes: [A, 4] float64, x y width height.
        areas: [A] float64, NaN where none is told.
        crowd: [A] bool.
    """

    ids: NDArray[np.int64]
    image_ids: NDArray[np.int64]
    category_ids: NDArray[np.int64]
    boxes: NDArray[np.float64]
    areas: NDArray[np.float64]
    crowd: NDArray[np.bool_]

    def select(self, keep: NDArray[np.bool_]) -> CocoAnnotations:
        """Only some of them; `keep` is [A]."""
        return CocoAnnotations(
            self.ids[keep],
            self.image_ids[keep],
            self.category_ids[keep],
            self.boxes[keep],
            self.areas[keep],
            self.crowd[keep],
        )


@dataclass(frozen=True, eq=False)
class CocoColumns:
    """What a json holds: the rows of its categories as they stand there; no annotations where it has no such key."""

    categories: list[Any]
    images: CocoImages
    annotations: CocoAnnotations | None


def stream_coco(path: Path) -> CocoColumns | None:
    """The columns of a COCO json in which everything is as usual, at a few hundred MB a second; else None.

    Usual is: `images` of objects with a whole number `id` and a `file_name`, maybe `width` and `height`; `annotations`,
    if there are any, with whole numbers `id`, `image_id` and `category_id` and a `bbox` of four finite numbers, maybe
    `area` and `iscrowd`; `categories` of objects whose `id` is a whole number; no key twice among these three.
    """
    found: dict[str, Any] = {}
    try:
        with path.open("rb") as file:
            stream = JsonStream(file)
            for key in stream.sections():
                if key in found:
                    return None
                if key == "images":
                    found[key] = _images(stream)
                elif key == "annotations":
                    found[key] = _annotations(stream)
                elif key == "categories":
                    found[key] = _categories(stream)
                else:
                    stream.skip()
    except (Unusual, OSError, ValueError, OverflowError, RecursionError, msgspec.MsgspecError):
        return None
    if "images" not in found or "categories" not in found:
        return None
    return CocoColumns(found["categories"], found["images"], found.get("annotations"))


def holds_coco_boxes(path: Path) -> bool | None:
    """Whether a json is a COCO dataset for detection; None where it is not usual enough to be read as a stream.

    It is one with `images` and `categories`, and no annotations at all or one that has a box or a mask.
    """
    sections: set[str] = set()
    annotated, marked = False, False
    try:
        with path.open("rb") as file:
            stream = JsonStream(file)
            for key in stream.sections():
                if key in sections:
                    return None
                if key == "annotations" and stream.holds_objects():
                    annotated = True
                    for rows in stream.objects(_MARKED.decode):
                        marked |= any((row.bbox, row.segmentation) != _UNMARKED for row in rows)
                elif key in ("images", "categories"):
                    if stream.holds_objects():
                        stream.skip()
                    elif not isinstance(stream.value(), list):
                        return False
                elif key == "annotations":
                    if stream.value() not in (None, []):
                        return None
                else:
                    stream.skip()
                if key in ("images", "categories", "annotations"):
                    sections.add(key)
    except (Unusual, OSError, ValueError, OverflowError, RecursionError, msgspec.MsgspecError):
        return None
    return {"images", "categories"} <= sections and (marked or not annotated)


def _images(stream: JsonStream) -> CocoImages:
    ids: list[NDArray[np.int64]] = []
    sizes: list[NDArray[np.int64]] = []
    names: list[str] = []
    for rows in stream.objects(_IMAGES.decode):
        ids.append(_whole([row.id for row in rows]))
        sizes.append(np.array([(row.width or 0, row.height or 0) for row in rows], np.int64).reshape(-1, 2))
        names.extend(row.file_name for row in rows)
    told = _joined(sizes, (0, 2), np.int64)
    odd = ((told < 1) | (told > LARGEST_SIDE)).any(axis=1) & told.any(axis=1)
    if odd.any() or not all(name.strip() and "\0" not in name for name in names):
        raise Unusual
    return CocoImages(_joined(ids, (0,), np.int64), names, told)


def _annotations(stream: JsonStream) -> CocoAnnotations:
    columns: list[list[NDArray[Any]]] = [[] for _ in range(6)]
    for rows in stream.objects(_ANNOTATIONS.decode):
        boxes = np.fromiter(chain.from_iterable([row.bbox for row in rows]), np.float64, 4 * len(rows))
        # None becomes NaN.
        areas = np.array([row.area for row in rows], np.float64)
        if (np.abs(boxes) >= _LARGEST_NUMBER).any() or (np.abs(areas) >= _LARGEST_NUMBER).any():
            raise Unusual
        crowd = [row.iscrowd for row in rows]
        if not set(crowd) <= {0, 1, None}:
            raise Unusual
        parts = (
            _whole([row.id for row in rows]),
            _whole([row.image_id for row in rows]),
            _whole([row.category_id for row in rows]),
            boxes.reshape(-1, 4),
            areas,
            np.array(crowd, np.bool_),
        )
        for column, part in zip(columns, parts, strict=True):
            column.append(part)
    ids, image_ids, category_ids, joined_boxes, joined_areas, crowds = columns
    return CocoAnnotations(
        _joined(ids, (0,), np.int64),
        _joined(image_ids, (0,), np.int64),
        _joined(category_ids, (0,), np.int64),
        _joined(joined_boxes, (0, 4), np.float64),
        _joined(joined_areas, (0,), np.float64),
        _joined(crowds, (0,), np.bool_),
    )


def _categories(stream: JsonStream) -> list[Any]:
    rows = [row for some in stream.objects(msgspec.json.decode) for row in some]
    if not all(type(row.get("id")) is int and abs(row["id"]) <= LARGEST_ID for row in rows):
        raise Unusual
    return rows


def _whole(values: list[int]) -> NDArray[np.int64]:
    found = np.array(values, np.int64)
    if (found < -LARGEST_ID).any():
        raise Unusual
    return found


def _joined(parts: list[NDArray[Any]], empty: tuple[int, ...], kind: type) -> NDArray[Any]:
    """One array of all parts, which are let go."""
    whole = np.concatenate([np.zeros(empty, kind), *parts])
    parts.clear()
    return whole
