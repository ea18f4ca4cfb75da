"""One COCO annotation json: read into records with every problem named.

It is read as a stream into flat arrays (`coco_rows`, which tells of single rows); what is told of them is told here, by
whole columns.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tood.data.columns import PathColumn
from tood.data.dataset import Category, ImageRecords, Problem
from tood.data.formats.coco_columns import CocoAnnotations, CocoImages
from tood.data.formats.coco_images import LocatedImages
from tood.data.formats.coco_rows import read_rows
from tood.data.formats.folder import box_areas, clean_boxes, clip_reason, drop_reason, valid_areas
from tood.data.formats.foreign import json_kind
from tood.data.images import image_size
from tood.data.records import Boxes, name_length
from tood.errors import ToodError

# Boxes that are looked at once: what is computed on the way takes several times their memory.
_BLOCK = 1 << 18


@dataclass(frozen=True)
class ParsedCoco:
    """What a json holds; `annotated` is False where it has no `annotations` at all."""

    categories: tuple[Category, ...]
    images: ImageRecords
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
    rows = read_rows(path)
    problems = list(rows.image_problems)
    table = _images(rows.images, path, problems)
    table = _located(table, locate(table.names), path, problems)
    problems.extend(rows.annotation_problems)
    annotations, annotated = rows.annotations or _NO_ANNOTATIONS, rows.annotations is not None
    categories = rows.categories
    del rows  # what is made of them takes their place
    boxes = _boxes(annotations, table, categories, path, problems)
    return ParsedCoco(categories, _records(table, boxes), tuple(problems), annotated)


_NO_IDS = np.zeros(0, np.int64)
_NO_ANNOTATIONS = CocoAnnotations(_NO_IDS, _NO_IDS, _NO_IDS, np.zeros((0, 4)), np.zeros(0), np.zeros(0, np.bool_))


@dataclass(frozen=True)
class _ImageTable:
    """The images as columns, sorted by id: ids [I], names, sizes [I, 2] (width, height; 0 if not told), files."""

    ids: NDArray[np.int64]
    names: Sequence[str]
    sizes: NDArray[np.int64]
    paths: PathColumn


def _images(images: CocoImages, path: Path, problems: list[Problem]) -> _ImageTable:
    ids, names = images.ids, images.names
    order = np.argsort(ids, kind="stable")
    fresh = np.ones(len(ids), bool)
    fresh[1:] = ids[order][1:] != ids[order][:-1]
    for at in order[~fresh].tolist():
        message = f"image id is there twice (again as {names[at]!r})"
        problems.append(Problem("duplicate_image_id", str(path), message, int(ids[at])))
    order = order[fresh]
    _note_repeated_files(images, path, problems)
    return _ImageTable(ids[order], [names[at] for at in order.tolist()], images.sizes[order], PathColumn.of(()))


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
    kept = np.flatnonzero(known)
    names = [table.names[at] for at in kept.tolist()]
    return _ImageTable(table.ids[kept], names, sizes[kept], table.paths.take(kept))


def _note_repeated_files(images: CocoImages, path: Path, problems: list[Problem]) -> None:
    if len(set(images.names)) == len(images.names):
        return
    seen: dict[str, int] = {}
    for name, own in zip(images.names, images.ids.tolist(), strict=True):
        first = seen.setdefault(name, own)
        if first != own:
            message = f"image file {name!r} is listed twice, also as image {first}"
            problems.append(Problem("duplicate_file", str(path), message, own, severity="warning"))


@dataclass(frozen=True)
class _BoxTable:
    """The kept annotations as columns, grouped by image: `at` [A] is the row in the image table."""

    at: NDArray[np.int64]
    boxes: Boxes


def _boxes(
    rows: CocoAnnotations, table: _ImageTable, categories: Sequence[Category], path: Path, problems: list[Problem]
) -> _BoxTable:
    file = str(path)
    at, image_known = _lookup(table.ids, rows.image_ids)
    class_ids = np.array([category.id for category in categories], np.int64).reshape(-1)
    labels, category_known = _lookup(class_ids, rows.category_ids)
    for row in np.flatnonzero(~category_known).tolist():
        message = f"category id {rows.category_ids[row]} is not among the categories"
        problems.append(Problem("unknown_category", file, message, int(rows.image_ids[row]), int(rows.ids[row])))
    for row in np.flatnonzero(~image_known).tolist():
        message = "belongs to an image that is not in the file: dropped"
        own, image = int(rows.ids[row]), int(rows.image_ids[row])
        problems.append(Problem("unknown_image", file, message, image, own, "warning"))
    for row in _repeated(rows.ids):
        own, image = int(rows.ids[row]), int(rows.image_ids[row])
        problems.append(Problem("duplicate_annotation_id", file, "annotation id is there twice", image, own))
    kept = image_known & category_known
    boxes, areas = _clean(rows, at, kept, table.sizes, file, problems)
    order = np.flatnonzero(kept)
    if (np.diff(at[order]) < 0).any():
        order = order[np.argsort(at[order], kind="stable")]
    return _BoxTable(at[order], Boxes(boxes[order], labels[order], rows.crowd[order], areas[order], rows.ids[order]))


def _clean(
    rows: CocoAnnotations,
    at: NDArray[np.int64],
    kept: NDArray[np.bool_],
    sizes: NDArray[np.int64],
    file: str,
    problems: list[Problem],
) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    """[A, 4] corners inside the images, [A] areas; rows that are of no use are taken out of `kept`, and told."""
    boxes, areas = np.zeros((len(kept), 4), np.float32), np.zeros(len(kept))
    dropped: list[Problem] = []
    clipped: list[Problem] = []
    for start in range(0, len(kept), _BLOCK):
        use = start + np.flatnonzero(kept[start : start + _BLOCK])
        corners, own_sizes = rows.boxes[use], sizes[at[use]]  # x y w h
        with np.errstate(over="ignore", invalid="ignore"):
            corners[:, 2:] += corners[:, :2]  # x1 y1 x2 y2
        clean = clean_boxes(corners, own_sizes.astype(np.float64))

        def problem(kind: str, row: int, message: str, use: NDArray[np.int64] = use) -> Problem:
            where = use[row]
            return Problem(kind, file, message, int(rows.image_ids[where]), int(rows.ids[where]), "warning")

        for row in np.flatnonzero(~clean.kept).tolist():
            reason = drop_reason(corners[row], bool(clean.outside[row]), _size(own_sizes[row]))
            dropped.append(problem("box_dropped", row, reason))
        for row in np.flatnonzero(clean.clipped).tolist():
            clipped.append(problem("box_clipped", row, clip_reason(corners[row], _size(own_sizes[row]))))
        kept[use[~clean.kept]] = False
        boxes[use] = clean.boxes
        areas[use] = valid_areas(rows.areas[use], box_areas(clean.boxes))
    problems += dropped + clipped
    return boxes, areas


def _size(row: NDArray[np.int64]) -> tuple[int, int]:
    return int(row[0]), int(row[1])


def _repeated(ids: NDArray[np.int64]) -> list[int]:
    """Rows whose id an earlier one has, in the order of the ids."""
    if (np.diff(ids) > 0).all():
        return []
    order = np.argsort(ids, kind="stable")
    found: list[int] = order[1:][ids[order][1:] == ids[order][:-1]].tolist()
    return found


def _lookup(table: NDArray[np.int64], wanted: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Row of each wanted id in a sorted table, and whether it is there."""
    if not len(table):
        return np.zeros(len(wanted), np.int64), np.zeros(len(wanted), np.bool_)
    at = np.searchsorted(table, wanted).clip(max=len(table) - 1)
    return at, table[at] == wanted


def _records(table: _ImageTable, boxes: _BoxTable) -> ImageRecords:
    count = len(table.ids)
    names = zip(table.paths.texts(), table.names, strict=True)
    lengths = np.fromiter((name_length(path, name) for path, name in names), np.int32, count)
    return ImageRecords(
        ids=table.ids,
        paths=table.paths,
        name_lengths=lengths,
        sizes=table.sizes.astype(np.int32),
        turned=np.zeros(count, np.bool_),
        size_from_file=np.zeros(count, np.bool_),
        orientations=np.zeros(count, np.int8),
        edges=np.searchsorted(boxes.at, np.arange(count + 1)),
        boxes=boxes.boxes,
        odd_names={at: table.names[at] for at in np.flatnonzero(lengths < 0).tolist()},
    )
