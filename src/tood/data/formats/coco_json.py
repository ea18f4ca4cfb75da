"""One COCO annotation json: read into records with every problem named, and written.

Reading is by columns, so that the 118,000 images and 860,000 boxes of COCO take seconds; the slow look at single rows
happens only where a whole column is not what it should be.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain, pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tood.data.dataset import Category, ImageRecord, Problem
from tood.data.formats.coco_content import make_plain, number_annotations, parse_coco
from tood.data.formats.coco_images import LocatedImages
from tood.data.formats.folder import annotated_areas, box_areas, clean_boxes, clip_reason, drop_reason
from tood.data.formats.foreign import json_kind
from tood.data.images import image_size
from tood.errors import ToodError

_LARGEST_ID = (1 << 63) - 1
_LARGEST_SIDE = 1 << 24


@dataclass(frozen=True)
class ParsedCoco:
    """What a json holds; `annotated` is False where it has no `annotations` at all."""

    categories: tuple[Category, ...]
    images: tuple[ImageRecord, ...]
    problems: tuple[Problem, ...]
    annotated: bool


def read_coco_json(path: Path, locate: Callable[[Sequence[str]], LocatedImages]) -> ParsedCoco:
    """Read an annotation file.

    Args:
        path: the json.
        locate: given the file names in it, tells where those files are.

    Returns:
        Everything usable in it and every problem, errors among them.

    Raises:
        ToodError: if the file cannot be read, is no json, or no COCO dataset at all.
    """
    try:
        return _read(path, locate)
    except ToodError:
        if (kind := json_kind(path)) is not None:
            raise ToodError(f"{kind.told(path)}; it is no COCO dataset") from None
        raise


def _read(path: Path, locate: Callable[[Sequence[str]], LocatedImages]) -> ParsedCoco:
    raw = parse_coco(path)
    numbered = number_annotations(raw)
    computed = make_plain(raw, path)
    problems: list[Problem] = []
    if numbered:
        message = f"{numbered} of its annotations have no id: numbered in their order"
        problems.append(Problem("id_numbered", str(path), message, severity="warning"))
    categories = _categories(raw.get("categories"), path, problems)
    table = _images(_section(raw, "images", path, problems), path, problems)
    table = _located(table, locate(table.names), path, problems)
    annotated = raw.get("annotations") is not None
    rows = _section(raw, "annotations", path, problems) if annotated else []
    if computed:
        message = f"{computed} of its annotations have no bbox: the enclosing box of their segmentation is taken"
        problems.append(Problem("box_from_segmentation", str(path), message, severity="warning"))
    boxes = _annotations(rows, table, categories, path, problems)
    images = _records(table, boxes)
    return ParsedCoco(categories, images, tuple(problems), annotated)


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


def _categories(rows: Any, path: Path, problems: list[Problem]) -> tuple[Category, ...]:
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


@dataclass(frozen=True)
class _ImageTable:
    """The images as columns, sorted by id: ids [I], names, sizes [I, 2] (width, height; 0 if not told), files."""

    ids: NDArray[np.int64]
    names: Sequence[str]
    sizes: NDArray[np.int64]
    paths: Sequence[Path] = ()


def _images(rows: list[dict[str, Any]], path: Path, problems: list[Problem]) -> _ImageTable:
    def complaint(row: dict[str, Any]) -> str | None:
        if not _is_id(row.get("id")):
            return f"its id is {_told(row.get('id'))}, not a whole number of 64 bits"
        name = row.get("file_name")
        if not isinstance(name, str) or not name.strip() or "\0" in name:
            return f"its file_name is {_told(name)}, not a name"
        if not row.get("width") and not row.get("height"):
            return None
        for side in ("width", "height"):
            value = row.get(side)
            if type(value) is not int or not 1 <= value <= _LARGEST_SIDE:
                return f"its {side} is {_told(value)}, not a whole number of pixels"
        return None

    rows = _valid_rows(rows, complaint, "images", path, problems, "id")
    ids = np.array([row["id"] for row in rows], np.int64).reshape(-1)
    order = np.argsort(ids, kind="stable")
    fresh = np.ones(len(ids), bool)
    fresh[1:] = ids[order][1:] != ids[order][:-1]
    for at in order[~fresh].tolist():
        message = f"image id is there twice (again as {rows[at]['file_name']!r})"
        problems.append(Problem("duplicate_image_id", str(path), message, rows[at]["id"]))
    order = order[fresh]
    sizes = np.array([(row.get("width") or 0, row.get("height") or 0) for row in rows], np.int64).reshape(-1, 2)
    _note_repeated_files(rows, path, problems)
    return _ImageTable(ids[order], [rows[at]["file_name"] for at in order.tolist()], sizes[order])


def _located(table: _ImageTable, located: LocatedImages, path: Path, problems: list[Problem]) -> _ImageTable:
    """The table with the files of its images; a size that the json does not tell is that of the file."""
    file, ids = str(path), table.ids.tolist()
    problems.extend(Problem("image_missing", file, message, ids[at]) for at, message in located.missing.items())
    if located.moved:
        problems.append(Problem("image_moved", file, located.moved, severity="warning"))
    table = replace(table, names=located.names, paths=located.paths)
    untold = np.flatnonzero(table.sizes[:, 0] == 0).tolist()
    if not untold:
        return table
    known = np.ones(len(ids), np.bool_)
    sizes = table.sizes.copy()
    for at in untold:
        try:
            sizes[at] = image_size(table.paths[at])
        except ToodError as error:
            known[at] = False
            kind = Problem.unreadable(table.paths[at], error).kind
            problems.append(Problem(kind, file, f"tells no width and height, and {error}", ids[at]))
    message = f"{len(untold)} of its images have no width and height there: those of the image files are taken"
    problems.append(Problem("size_from_image", file, message, severity="warning"))
    kept = np.flatnonzero(known).tolist()
    names, paths = [table.names[at] for at in kept], [table.paths[at] for at in kept]
    return _ImageTable(table.ids[kept], names, sizes[kept], paths)


def _note_repeated_files(rows: list[dict[str, Any]], path: Path, problems: list[Problem]) -> None:
    names = [row["file_name"] for row in rows]
    if len(set(names)) == len(names):
        return
    seen: dict[str, int] = {}
    for row in rows:
        first = seen.setdefault(row["file_name"], row["id"])
        if first != row["id"]:
            message = f"image file {row['file_name']!r} is listed twice, also as image {first}"
            problems.append(Problem("duplicate_file", str(path), message, row["id"], severity="warning"))


@dataclass(frozen=True)
class _BoxTable:
    """The kept annotations as columns, grouped by image: `at` [A] is the row in the image table."""

    at: NDArray[np.int64]
    boxes: NDArray[np.float32]
    labels: NDArray[np.int64]
    crowd: NDArray[np.bool_]
    areas: NDArray[np.float64]
    ids: NDArray[np.int64]


def _annotations(
    rows: list[dict[str, Any]],
    table: _ImageTable,
    categories: Sequence[Category],
    path: Path,
    problems: list[Problem],
) -> _BoxTable:
    file = str(path)
    rows = _valid_rows(rows, _annotation_complaint, "annotations", path, problems, "id", "image_id")
    ids = np.array([row["id"] for row in rows], np.int64).reshape(-1)
    image_ids = np.array([row["image_id"] for row in rows], np.int64).reshape(-1)
    category_ids = np.array([row["category_id"] for row in rows], np.int64).reshape(-1)
    at, image_known = _lookup(table.ids, image_ids)
    labels, category_known = _lookup(np.array([c.id for c in categories], np.int64).reshape(-1), category_ids)
    for row in np.flatnonzero(~category_known).tolist():
        message = f"category id {category_ids[row]} is not among the categories"
        problems.append(Problem("unknown_category", file, message, int(image_ids[row]), int(ids[row])))
    for row in np.flatnonzero(~image_known).tolist():
        message = "belongs to an image that is not in the file: dropped"
        problems.append(Problem("unknown_image", file, message, int(image_ids[row]), int(ids[row]), "warning"))
    order = np.argsort(ids, kind="stable")
    for row in order[1:][ids[order][1:] == ids[order][:-1]].tolist():
        problems.append(
            Problem("duplicate_annotation_id", file, "annotation id is there twice", int(image_ids[row]), int(ids[row]))
        )

    use = np.flatnonzero(image_known & category_known)
    corners = np.array([row["bbox"] for row in rows], np.float64).reshape(-1, 4)[use]  # x y w h
    with np.errstate(over="ignore", invalid="ignore"):
        corners[:, 2:] += corners[:, :2]  # x1 y1 x2 y2
    sizes = table.sizes[at[use]]
    clean = clean_boxes(corners, sizes.astype(np.float64))
    for row in np.flatnonzero(~clean.kept).tolist():
        message = drop_reason(corners[row], bool(clean.outside[row]), (int(sizes[row, 0]), int(sizes[row, 1])))
        where = use[row]
        problems.append(Problem("box_dropped", file, message, int(image_ids[where]), int(ids[where]), "warning"))
    for row in np.flatnonzero(clean.clipped).tolist():
        message = clip_reason(corners[row], (int(sizes[row, 0]), int(sizes[row, 1])))
        where = use[row]
        problems.append(Problem("box_clipped", file, message, int(image_ids[where]), int(ids[where]), "warning"))

    use, boxes = use[clean.kept], clean.boxes[clean.kept]
    crowd = np.array([bool(row.get("iscrowd")) for row in rows], np.bool_).reshape(-1)
    areas = annotated_areas((rows[at].get("area") for at in use.tolist()), box_areas(boxes))
    grouped = np.argsort(at[use], kind="stable")
    use = use[grouped]
    return _BoxTable(at[use], boxes[grouped], labels[use], crowd[use], areas[grouped], ids[use])


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
    if section == "annotations" and _columns_are_fine(rows):
        return rows
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


def _columns_are_fine(rows: list[dict[str, Any]]) -> bool:
    """Whether no annotation needs a closer look: the same as `_annotation_complaint` being silent, but by columns."""
    try:
        for key in ("id", "image_id", "category_id"):
            column = [row[key] for row in rows]
            if set(map(type, column)) - {int} or (column and max(map(abs, column)) > _LARGEST_ID):
                return False
        boxes = [row["bbox"] for row in rows]
    except KeyError:
        return False
    if set(map(type, boxes)) - {list} or set(map(len, boxes)) - {4}:
        return False
    values = list(chain.from_iterable(boxes))
    areas = [row["area"] for row in rows if "area" in row]
    if set(map(type, chain(values, areas))) - {int, float} or not all(map(_is_number, values)):
        return False
    crowds = {
        value
        for value in (row.get("iscrowd", 0) for row in rows)
        if type(value) is not list and type(value) is not dict
    }
    return (
        crowds <= {0, 1}
        and all(type(row.get("iscrowd", 0)) in (int, bool) for row in rows)
        and all(map(_is_number, areas))
    )


def _lookup(table: NDArray[np.int64], wanted: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Row of each wanted id in a sorted table, and whether it is there."""
    if not len(table):
        return np.zeros(len(wanted), np.int64), np.zeros(len(wanted), np.bool_)
    at = np.searchsorted(table, wanted).clip(max=len(table) - 1)
    return at, table[at] == wanted


def _records(table: _ImageTable, boxes: _BoxTable) -> tuple[ImageRecord, ...]:
    edges = np.searchsorted(boxes.at, np.arange(len(table.ids) + 1)).tolist()
    ids, sizes = table.ids.tolist(), table.sizes.tolist()
    return tuple(
        ImageRecord(
            id=ids[row],
            path=table.paths[row],
            width=sizes[row][0],
            height=sizes[row][1],
            boxes=boxes.boxes[start:end],
            labels=boxes.labels[start:end],
            crowd=boxes.crowd[start:end],
            areas=boxes.areas[start:end],
            annotation_ids=boxes.ids[start:end],
            file_name=table.names[row],
        )
        for row, (start, end) in enumerate(pairwise(edges))
    )


def _is_id(value: Any) -> bool:
    return type(value) is int and abs(value) <= _LARGEST_ID


def _is_number(value: Any) -> bool:
    # Whole numbers too large for a float would raise an OverflowError later.
    return type(value) is float or (type(value) is int and abs(value) <= _LARGEST_ID)


def _told(value: Any) -> str:
    """A value for a message, short."""
    if value is None:
        return "missing"
    text = json.dumps(value, default=str)
    return text if len(text) <= 60 else text[:57] + "..."
