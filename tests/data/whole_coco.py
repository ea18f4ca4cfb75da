"""A COCO json read whole, into objects: another way to what the reader of streams is to say of every file."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from pydantic_core import from_json

from tood.data.dataset import Problem
from tood.data.formats.coco_columns import LARGEST_ID, LARGEST_SIDE, CocoAnnotations, CocoImages
from tood.data.formats.coco_content import make_plain, number_annotations
from tood.data.formats.coco_rows import CocoRows, read_categories
from tood.data.formats.folder import told_areas
from tood.errors import ToodError


def read_whole(path: Path) -> CocoRows:
    """As `read_rows`."""
    raw = _parsed(path)
    numbered = number_annotations(raw)
    computed = make_plain(raw, path)
    before: list[Problem] = []
    if numbered:
        message = f"{numbered} of its annotations have no id: numbered in their order"
        before.append(Problem("id_numbered", str(path), message, severity="warning"))
    categories = read_categories(raw.get("categories"), path, before)
    images = _images(_section(raw, "images", path, before), path, before)
    if raw.get("annotations") is None:
        return CocoRows(categories, images, None, before, [])
    problems: list[Problem] = []
    rows = _section(raw, "annotations", path, problems)
    if computed:
        message = f"{computed} of its annotations have no bbox: the enclosing box of their segmentation is taken"
        problems.append(Problem("box_from_segmentation", str(path), message, severity="warning"))
    return CocoRows(categories, images, _annotations(rows, path, problems), before, problems)


def _parsed(path: Path) -> dict[str, Any]:
    try:
        data = path.read_bytes().removeprefix(b"\xef\xbb\xbf")
    except FileNotFoundError:
        raise ToodError(f"{path}: no such file") from None
    except OSError as error:
        raise ToodError(f"{path}: cannot be read ({error.strerror})") from None
    if not data.strip():
        raise ToodError(f"{path}: is empty, not a COCO json")
    try:
        raw = from_json(data)
    except ValueError as error:
        raise ToodError(f"{path}: broken json: {error}") from None
    if not isinstance(raw, dict):
        raise ToodError(
            f"{path}: is json, but no COCO dataset: an object with 'images', 'annotations' and 'categories'"
        )
    return raw


def whole_is_annotated(path: Path) -> bool:
    """As `is_annotated`."""
    try:
        return bool(_parsed(path).get("annotations"))
    except ToodError:
        return True


def whole_holds_boxes(path: Path) -> bool:
    """As `holds_boxes`."""
    try:
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


def _section(raw: Mapping[str, Any], key: str, path: Path, problems: list[Problem]) -> list[dict[str, Any]]:
    """The objects of a list; anything else in it is an error."""
    rows = raw.get(key)
    if not isinstance(rows, list):
        what = "is missing" if key not in raw else f"is {_told(rows)}, not a list"
        raise ToodError(f"{path}: not a COCO dataset: its {key!r} {what}")
    if all(type(row) is dict for row in rows):
        return rows
    for number, row in enumerate(rows):
        if not isinstance(row, dict):
            problems.append(Problem("wrong_type", str(path), f"{key}[{number}] is {_told(row)}, not an object"))
    return [row for row in rows if isinstance(row, dict)]


def _images(rows: list[dict[str, Any]], path: Path, problems: list[Problem]) -> CocoImages:
    rows = _valid_rows(rows, _image_complaint, "images", path, problems, "id")
    return CocoImages(
        np.array([row["id"] for row in rows], np.int64).reshape(-1),
        [row["file_name"] for row in rows],
        np.array([(row.get("width") or 0, row.get("height") or 0) for row in rows], np.int64).reshape(-1, 2),
    )


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


def _annotations(rows: list[dict[str, Any]], path: Path, problems: list[Problem]) -> CocoAnnotations:
    rows = _valid_rows(rows, _annotation_complaint, "annotations", path, problems, "id", "image_id")
    return CocoAnnotations(
        np.array([row["id"] for row in rows], np.int64).reshape(-1),
        np.array([row["image_id"] for row in rows], np.int64).reshape(-1),
        np.array([row["category_id"] for row in rows], np.int64).reshape(-1),
        np.array([row["bbox"] for row in rows], np.float64).reshape(-1, 4),
        told_areas(row.get("area") for row in rows),
        np.array([bool(row.get("iscrowd")) for row in rows], np.bool_).reshape(-1),
    )


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


def _valid_rows(
    rows: list[dict[str, Any]],
    complaint: Callable[[dict[str, Any]], str | None],
    section: str,
    path: Path,
    problems: list[Problem],
    id_key: str,
    image_key: str | None = None,
) -> list[dict[str, Any]]:
    """The rows that `complaint` says nothing about; an error for each other."""
    kept = []
    for number, row in enumerate(rows):
        found = complaint(row)
        if found is None:
            kept.append(row)
            continue
        own = row.get(id_key)
        image_id = row.get(image_key) if image_key else own
        problems.append(
            Problem(
                "wrong_type",
                str(path),
                f"{section}[{number}]: {found}",
                image_id if _is_id(image_id) else None,
                own if image_key and _is_id(own) else None,
            )
        )
    return kept


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
