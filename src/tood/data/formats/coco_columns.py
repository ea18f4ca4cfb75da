"""The rows of a COCO json as flat arrays; of usual ones masks, nine tenths of COCO's files, never become objects."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

LARGEST_ID = (1 << 63) - 1
LARGEST_SIDE = 1 << 24
# Greater whole numbers are refused, though a float may be as large.
_LARGEST_NUMBER = float(1 << 63)


class _Image(msgspec.Struct, gc=False):
    id: int | float | str
    file_name: str
    width: int | float | str | None = None
    height: int | float | str | None = None


class _Annotation(msgspec.Struct, gc=False):
    image_id: int | float | str
    category_id: int | float | str
    bbox: tuple[float, float, float, float]
    id: int | float | str | None = None
    area: float | None = None
    iscrowd: int | bool | None = 0


_IMAGES = msgspec.json.Decoder(list[_Image])
_ANNOTATIONS = msgspec.json.Decoder(list[_Annotation])


@dataclass(frozen=True, eq=False)
class CocoImages:
    """The images: ids [I] int64, file names, sizes [I, 2] int64 (width, height; 0 where not told)."""

    ids: NDArray[np.int64]
    names: Sequence[str]
    sizes: NDArray[np.int64]

    @staticmethod
    def of(parts: list[CocoImages]) -> CocoImages:
        """All in one; the parts are let go."""
        whole = CocoImages(
            np.concatenate([np.zeros(0, np.int64), *(part.ids for part in parts)]),
            list(chain.from_iterable(part.names for part in parts)),
            np.concatenate([np.zeros((0, 2), np.int64), *(part.sizes for part in parts)]),
        )
        parts.clear()
        return whole


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

    @staticmethod
    def of(parts: list[CocoAnnotations]) -> CocoAnnotations:
        """All in one; the parts are let go."""
        columns: list[list[NDArray[Any]]] = [[] for _ in range(6)]
        for part in parts:
            own = (part.ids, part.image_ids, part.category_ids, part.boxes, part.areas, part.crowd)
            for column, array in zip(columns, own, strict=True):
                column.append(array)
        parts.clear()
        return CocoAnnotations(
            _joined(columns[0], (0,), np.int64),
            _joined(columns[1], (0,), np.int64),
            _joined(columns[2], (0,), np.int64),
            _joined(columns[3], (0, 4), np.float64),
            _joined(columns[4], (0,), np.float64),
            _joined(columns[5], (0,), np.bool_),
        )

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


def usual_images(text: bytes) -> CocoImages | None:
    """The images of a json list, None if one is not as usual, which need not be wrong.

    Usual is an object with a whole number `id` and a `file_name`, maybe `width` and `height`.
    """
    try:
        rows = _IMAGES.decode(text)
        ids = _whole([row.id for row in rows])
        sides = (_whole([row.width or 0 for row in rows]), _whole([row.height or 0 for row in rows]))
    except (ValueError, RecursionError, OverflowError):
        return None
    sizes, names = np.stack(sides, axis=1), [row.file_name for row in rows]
    odd = ((sizes < 1) | (sizes > LARGEST_SIDE)).any(axis=1) & sizes.any(axis=1)
    if odd.any() or not all(name.strip() and "\0" not in name for name in names):
        return None
    return CocoImages(ids, names, sizes)


def usual_annotations(text: bytes, free_ids: Callable[[int], Sequence[int]]) -> CocoAnnotations | None:
    """The annotations of a json list, None if one is not as usual, which need not be wrong.

    Usual is an object with whole numbers `image_id`, `category_id` and maybe `id`, a `bbox` of four finite numbers,
    maybe `area` and `iscrowd`.

    Args:
        text: the json.
        free_ids: gives so many ids to those without, or fewer if there are no more.
    """
    try:
        rows = _ANNOTATIONS.decode(text)
        image_ids, category_ids = _whole([row.image_id for row in rows]), _whole([row.category_id for row in rows])
        given = [row.id for row in rows]
        ids = _whole([0 if own is None else own for own in given])
    except (ValueError, RecursionError, OverflowError):
        return None
    boxes = np.fromiter(chain.from_iterable([row.bbox for row in rows]), np.float64, 4 * len(rows))
    # None becomes NaN.
    areas = np.array([row.area for row in rows], np.float64)
    crowd = [row.iscrowd for row in rows]
    if not set(crowd) <= {0, 1, None}:
        return None
    if (np.abs(boxes) >= _LARGEST_NUMBER).any() or (np.abs(areas) >= _LARGEST_NUMBER).any():
        return None
    lacking = [at for at, own in enumerate(given) if own is None]
    free = free_ids(len(lacking))
    if len(free) < len(lacking):
        return None
    ids[lacking] = free
    return CocoAnnotations(ids, image_ids, category_ids, boxes.reshape(-1, 4), areas, np.array(crowd, np.bool_))


def as_whole(value: object) -> object:
    """7.0 and "7" as 7, all else as it is: "007" may be another's."""
    # From 2^53 on a float stands for several whole numbers.
    if type(value) is float and value.is_integer() and abs(value) < 2**53:
        return int(value)
    if type(value) is str and len(value) < 20 and value.isascii() and value.isdigit() and str(int(value)) == value:
        return int(value)
    return value


def _whole(values: list[Any]) -> NDArray[np.int64]:
    """[A] what is meant by whole numbers, exact.

    Raises:
        ValueError, OverflowError: if one is none that can be an id.
    """
    if set(map(type, values)) - {int}:
        values = list(map(as_whole, values))
        if set(map(type, values)) - {int}:
            raise ValueError
    found = np.array(values, np.int64)
    if (found < -LARGEST_ID).any():
        raise ValueError
    return found


def _joined(parts: list[NDArray[Any]], empty: tuple[int, ...], kind: type) -> NDArray[Any]:
    """One array of all parts, which are let go."""
    whole = np.concatenate([np.zeros(empty, kind), *parts])
    parts.clear()
    return whole
