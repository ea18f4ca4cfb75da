"""The content of a COCO json as it is meant: ids and sizes that some tools write as 1.0, boxes that only masks tell."""

from __future__ import annotations

import mmap
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import TypeAdapter, ValidationError
from pydantic_core import from_json
from typing_extensions import TypedDict

from tood.data.formats.coco_columns import holds_coco_boxes
from tood.errors import ToodError

_IDS = {"images": ("id",), "annotations": ("id", "image_id", "category_id"), "categories": ("id",)}
_SIDES = ("width", "height")
# From so many bytes on a file is looked through without being held.
_LARGE = 1 << 25
# A larger mask is none: its runs would not fit any picture that can be decoded.
_LARGEST_MASK = 1 << 40


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
COCO_FILE = TypeAdapter(_File)


def parse_coco(path: Path) -> dict[str, Any]:
    """A file's object of `images`, `annotations` and `categories`, none of which is looked at.

    Raises:
        ToodError: if the file cannot be read, is no json, or something else than an object.
    """
    try:
        data = path.read_bytes().removeprefix(b"\xef\xbb\xbf")
    except FileNotFoundError:
        raise ToodError(f"{path}: no such file") from None
    except OSError as error:
        raise ToodError(f"{path}: cannot be read ({error.strerror})") from None
    if not data.strip():
        raise ToodError(f"{path}: is empty, not a COCO json")
    try:
        return dict(COCO_FILE.validate_json(data))
    except ValidationError:
        pass  # broken json, or something of a wrong type: the slow way tells which
    try:
        raw = from_json(data)
    except ValueError as error:
        raise ToodError(f"{path}: broken json: {error}") from None
    if not isinstance(raw, dict):
        raise ToodError(
            f"{path}: is json, but no COCO dataset: an object with 'images', 'annotations' and 'categories'"
        )
    return raw


# `annotations` with at least one of them; of large files only the beginning, the images, is searched.
_ANNOTATIONS = re.compile(rb'"annotations"\s*:\s*\[\s*[^\]\s]')


def is_annotated(path: Path) -> bool:
    """Whether a json has any annotation to measure by; one that cannot be read counts, so that reading it tells why."""
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            if _ANNOTATIONS.search(content):
                return True
        return bool(parse_coco(path).get("annotations"))
    except (OSError, ValueError, ToodError):
        return True


def holds_boxes(path: Path) -> bool:
    """Whether a json is a COCO dataset for detection: not captions, panoptic segments, or a tool's own settings."""
    try:
        if path.stat().st_size > _LARGE and (found := holds_coco_boxes(path)) is not None:
            return found
        data = path.read_bytes().removeprefix(b"\xef\xbb\xbf")
        # Parsed only if it may be one: there may be thousands of another kind, with pictures in them.
        raw = from_json(data) if b'"images"' in data and b'"categories"' in data else None
    except (OSError, ValueError):
        return False
    if not isinstance(raw, dict) or not all(isinstance(raw.get(key), list) for key in ("images", "categories")):
        return False
    rows = raw.get("annotations")
    if not isinstance(rows, list) or not rows:
        return rows is None or rows == []
    return any(isinstance(row, dict) and ("bbox" in row or "segmentation" in row) for row in rows)


def make_plain(content: Any, path: Path) -> int:
    """Change parsed content in place to what it means, so that whoever reads it finds the same.

    Ids and sides that are whole as 7.0 or "7" (not "007", which may be another's) become whole numbers; annotations
    without an `id` are numbered; one without a `bbox` gets the enclosing box of its `segmentation`.

    Args:
        content: as parsed; of any form.
        path: the file, read once more where a box is missing.

    Returns:
        The number of boxes that were computed.
    """
    if not isinstance(content, dict):
        return 0
    for section, keys in _IDS.items():
        for key in keys:
            _make_whole(content.get(section), key)
    for key in _SIDES:
        _make_whole(content.get("images"), key)
    number_annotations(content)
    return _add_boxes(content.get("annotations"), path)


def number_annotations(content: Any) -> int:
    """Give a number to each annotation that has no `id` at all, above those of the others; returns how many."""
    rows = content.get("annotations") if isinstance(content, dict) else None
    if not isinstance(rows, list):
        return 0
    lacking = [row for row in rows if type(row) is dict and row.get("id") is None]
    if lacking:
        _make_whole(rows, "id")
        taken = [row["id"] for row in rows if type(row) is dict and type(row.get("id")) is int]
        for number, row in enumerate(lacking, start=max([0, *taken]) + 1):
            row["id"] = number
    return len(lacking)


def _make_whole(rows: Any, key: str) -> None:
    if not isinstance(rows, list) or {type(row.get(key)) for row in rows if type(row) is dict} <= {int}:
        return
    for row in rows:
        if type(row) is not dict:
            continue
        value = row.get(key)
        # From 2^53 on a float stands for several whole numbers.
        if type(value) is float and value.is_integer() and abs(value) < 2**53:
            row[key] = int(value)
        elif type(value) is str and len(value) < 20 and value.isascii() and value.isdigit():
            row[key] = int(value) if str(int(value)) == value else value


def _add_boxes(rows: Any, path: Path) -> int:
    if not isinstance(rows, list):
        return 0
    lacking = [at for at, row in enumerate(rows) if type(row) is dict and row.get("bbox") in (None, [])]
    if not lacking:
        return 0
    whole = from_json(path.read_bytes().removeprefix(b"\xef\xbb\xbf"))["annotations"]
    added = 0
    for at in lacking:
        box = _enclosing_box(whole[at].get("segmentation"))
        if box is not None:
            rows[at]["bbox"] = box
            added += 1
    return added


def _enclosing_box(segmentation: Any) -> list[float] | None:
    """x y width height of polygons or of a run-length mask; None where it is neither."""
    if isinstance(segmentation, dict):
        return _mask_box(segmentation)
    if not isinstance(segmentation, list):
        return None
    # VIA writes one polygon without a list around it.
    polygons = [segmentation] if segmentation and not isinstance(segmentation[0], list) else segmentation
    values = [value for polygon in polygons if isinstance(polygon, list) for value in polygon]
    numbers = all(type(value) in (int, float) and abs(value) < 1e300 for value in values)
    if not values or not numbers or any(not isinstance(polygon, list) or len(polygon) % 2 for polygon in polygons):
        return None
    points = np.array(values, np.float64).reshape(-1, 2)
    low, high = points.min(axis=0), points.max(axis=0)
    return [float(value) for value in (*low, *(high - low))]


def _mask_box(mask: Mapping[str, Any]) -> list[float] | None:
    """x y width height of a run-length mask: column after column, runs of noughts and of ones in turn."""
    counts, size = mask.get("counts"), mask.get("size")
    if isinstance(counts, str):
        counts = _decoded(counts)
    if not isinstance(counts, list) or not isinstance(size, list) or len(size) != 2:
        return None
    if any(type(value) is not int or not 0 <= value <= _LARGEST_MASK for value in (*counts, *size)) or not size[0]:
        return None
    edges = np.concatenate([[0], np.cumsum(np.array(counts, np.int64))])
    starts, ends = edges[1:-1:2], edges[2::2]
    starts, ends = starts[starts < ends], ends[starts < ends]
    if not len(starts):
        return None
    (left, top), (right, bottom) = divmod(starts, size[0]), divmod(ends - 1, size[0])
    # A run that goes on in the next column reaches from the top to the bottom.
    crosses = bool((left != right).any())
    x, y = int(left.min()), 0 if crosses else int(top.min())
    x2, y2 = int(right.max()) + 1, size[0] if crosses else int(bottom.max()) + 1
    return [float(x), float(y), float(x2 - x), float(y2 - y)]


def _decoded(text: str) -> list[int] | None:
    """The runs of COCO's compressed masks: 5 bits a letter; from the fourth on, the difference to the last but one."""
    counts: list[int] = []
    value = shift = 0
    for letter in text:
        bits = ord(letter) - 48
        if not 0 <= bits < 64 or shift > 60:
            return None
        value |= (bits & 0x1F) << shift
        shift += 5
        if bits & 0x20:
            continue
        if bits & 0x10:
            value -= 1 << shift
        counts.append(value + (counts[-2] if len(counts) > 2 else 0))
        value = shift = 0
    return None if shift else counts
