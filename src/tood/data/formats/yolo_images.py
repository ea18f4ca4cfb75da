"""The images of a YOLO split with what their label files say, as columns."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tood.data.columns import PathColumn, TextColumn
from tood.data.dataset import ImageRecords, Problem
from tood.data.files import path_order
from tood.data.formats.folder import box_areas, clean_boxes, clip_reason, drop_reason
from tood.data.formats.yolo_labels import LabelFinder, LabelTable
from tood.data.images import FileFacts, file_facts
from tood.data.records import Boxes, name_length
from tood.errors import ToodError
from tood.file_identity import FileIdentity, file_identity

# Files whose content is held as objects before it becomes part of a column.
_BLOCK = 4096


@dataclass(frozen=True, eq=False)
class ListedImages:
    """The images of a split, each file once, sorted by their paths.

    Attributes:
        paths: the files.
        names: of each inside its split.
        identities: of the files.
        labels: the label file of each, an empty path where there is none.
        labelled: [I] bool, whether there is one.
    """

    paths: PathColumn
    names: TextColumn
    identities: Sequence[FileIdentity]
    labels: PathColumn
    labelled: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.paths)

    @staticmethod
    def of(named: Iterable[tuple[Path, str]], finder: LabelFinder, problems: list[Problem]) -> ListedImages:
        """Those of paths with their names inside the split; of several paths to one file one is taken, and told."""
        paths: list[str] = []
        names: list[str] = []
        firsts: dict[FileIdentity, int] = {}
        groups: dict[int, list[int]] = {}
        for path, name in named:
            first = firsts.setdefault(file_identity(path), len(paths))
            if first != len(paths):
                groups.setdefault(first, [first]).append(len(paths))
            paths.append(str(path))
            names.append(name)
        for first in sorted(groups):
            chosen = _one_of([Path(paths[at]) for at in groups[first]], finder, problems)
            groups[first] = [groups[first][chosen]]
        rows = [(groups.get(first, (first,))[0], identity) for identity, first in firsts.items()]
        rows.sort(key=lambda row: path_order(paths[row[0]]))
        column = PathColumn.of(paths[at] for at, _ in rows)
        labels = PathColumn.of(str(label) if (label := finder.find(path)) else "" for path in column)
        labelled = labels.bases.lengths > 0
        identities = [identity for _, identity in rows]
        return ListedImages(column, TextColumn.of(names[at] for at, _ in rows), identities, labels, labelled)

    @property
    def label_files(self) -> PathColumn:
        """The label files that there are."""
        return self.labels.take(np.flatnonzero(self.labelled))

    def sharing_labels(self) -> Iterator[tuple[Path, list[Path]]]:
        """Each label file that several images have, with those."""
        groups: dict[int, list[int]] = {}
        for _, own in self.labels.take(np.flatnonzero(self.labelled)).by_folder():
            rows = np.flatnonzero(self.labelled)[own].tolist()
            firsts: dict[str, int] = {}
            for row, base in zip(rows, self.labels.bases.take(np.array(rows, np.int64)), strict=True):
                if (first := firsts.setdefault(base, row)) != row:
                    groups.setdefault(first, [first]).append(row)
        for first in sorted(groups):
            yield self.labels[first], [self.paths[row] for row in groups[first]]


def _one_of(paths: list[Path], finder: LabelFinder, problems: list[Problem]) -> int:
    """Which of several paths to one file is taken: one that has labels, and rather no link."""
    labels = [finder.find(path) for path in paths]
    best = min(range(len(paths)), key=lambda at: (labels[at] is None, paths[at].is_symlink(), paths[at]))
    others = sorted({str(path) for path in paths} - {str(paths[best])})
    message = "is named twice in its split" + (f", also as {others[0]}" if others else "") + ": taken once"
    problems.append(Problem("duplicate_file", str(paths[best]), message, severity="warning"))
    found = {label for label in labels if label is not None}
    if len({file_identity(label) for label in found}) > 1 and not _alike(found):
        told = " and ".join(map(str, sorted(found)[:2]))
        message = f"is one picture of several names whose labels differ ({told}): remove all but one"
        problems.append(Problem("labels_differ", str(paths[best]), message))
    return best


def _alike(labels: Iterable[Path]) -> bool:
    try:
        return len({label.read_bytes() for label in labels}) == 1
    except OSError:
        return False


@dataclass(frozen=True, eq=False)
class LabelColumns:
    """What the label files of a split's images say.

    Attributes:
        rows: [G, 5] float64 `class cx cy w h`, parts of the image.
        lines: [G] int32, the line of each row in its file, from 1.
        edges: [I + 1] int64, where each image's rows begin.
        tracks: [I] int32, lines of each that end in a track id.
        polygons: [I] int32, lines of each that were taken for a polygon.
        problems: by image, what is wrong in its file.
    """

    rows: NDArray[np.float64]
    lines: NDArray[np.int32]
    edges: NDArray[np.int64]
    tracks: NDArray[np.int32]
    polygons: NDArray[np.int32]
    problems: dict[int, list[Problem]]

    @staticmethod
    def of(
        count: int,
        read: Callable[[int], tuple[LabelTable, list[Problem]]],
        each: Callable[[LabelTable], None] = lambda table: None,
    ) -> LabelColumns:
        """Those of so many images.

        Args:
            count: of the images.
            read: the labels of an image by its index.
            each: is shown every table.
        """
        rows, lines = [np.zeros((0, 5))], [np.zeros(0, np.int32)]
        told = np.zeros((count, 3), np.int32)
        problems: dict[int, list[Problem]] = {}
        for start in range(0, count, _BLOCK):
            tables: list[LabelTable] = []
            for at in range(start, min(start + _BLOCK, count)):
                table, found = read(at)
                if found:
                    problems[at] = found
                each(table)
                told[at] = len(table.rows), table.tracks, len(table.polygons)
                tables.append(replace(table, polygons=()) if table.polygons else table)
            rows.append(np.concatenate([table.rows for table in tables]))
            lines.append(np.array([line for table in tables for line in table.lines], np.int32))
        edges = np.concatenate([[0], np.cumsum(told[:, 0], dtype=np.int64)])
        return LabelColumns(np.concatenate(rows), np.concatenate(lines), edges, told[:, 1], told[:, 2], problems)


def read_images(listed: ListedImages, labels: LabelColumns, problems: list[Problem]) -> ImageRecords:
    """The records of the images that can be measured, numbered from 1; what is wrong goes into `problems`."""
    blocks: list[ImageRecords] = []
    boxes = 0
    for start in range(0, len(listed), _BLOCK):
        blocks.append(_records(listed, labels, slice(start, min(start + _BLOCK, len(listed))), boxes + 1, problems))
        boxes += len(blocks[-1].boxes)
    return ImageRecords.join(blocks)


def _records(
    listed: ListedImages, labels: LabelColumns, chosen: slice, first_id: int, problems: list[Problem]
) -> ImageRecords:
    """The records of some images; `first_id` is the annotation id of their first box."""
    numbers = range(chosen.start, chosen.stop)
    paths, names = list(listed.paths[chosen].texts()), list(listed.names[chosen])
    facts: list[FileFacts | None] = []
    told = {
        number: [replace(problem, image_id=number + 1) for problem in labels.problems.get(number, ())]
        for number in numbers
    }
    for number, path in zip(numbers, paths, strict=True):
        try:
            facts.append(file_facts(Path(path)))
        except ToodError as error:
            facts.append(None)
            told[number] = [Problem.unreadable(Path(path), error)]
    known = np.array([one is not None for one in facts], np.bool_)
    sizes = np.array([(0, 0) if one is None else one.size for one in facts], np.int32)
    edges = labels.edges[chosen.start : chosen.stop + 1]
    at = np.repeat(np.arange(len(numbers)), np.diff(edges))
    own = np.arange(edges[0], edges[-1])[known[at]]
    at = at[known[at]]
    kept, at, found = _boxes(labels.rows[own], labels.lines[own], at, sizes, listed, chosen.start, told)
    for number in numbers:
        problems.extend(told[number])
    rows = np.flatnonzero(known)
    counts = np.bincount(at, minlength=len(numbers))[rows]
    lengths = [name_length(paths[row], names[row]) for row in rows.tolist()]
    return ImageRecords(
        ids=chosen.start + rows + 1,
        paths=PathColumn.of(paths[row] for row in rows.tolist()),
        name_lengths=np.array(lengths, np.int32),
        sizes=sizes[rows],
        turned=np.zeros(len(rows), np.bool_),
        size_from_file=np.ones(len(rows), np.bool_),
        orientations=np.array([one.orientation for one in facts if one is not None], np.int8),
        edges=np.concatenate([[0], np.cumsum(counts)]),
        boxes=Boxes(
            found,
            labels.rows[own[kept], 0].astype(np.int64),
            np.zeros(len(found), np.bool_),
            box_areas(found),
            np.arange(first_id, first_id + len(found), dtype=np.int64),
        ),
        odd_names={at: names[row] for at, row in enumerate(rows.tolist()) if lengths[at] < 0},
    )


def _boxes(
    values: NDArray[np.float64],
    lines: NDArray[np.int32],
    at: NDArray[np.int64],
    sizes: NDArray[np.int32],
    listed: ListedImages,
    first: int,
    told: dict[int, list[Problem]],
) -> tuple[NDArray[np.bool_], NDArray[np.int64], NDArray[np.float32]]:
    """Which rows [G, 5] of labels are boxes, and of those the images [K] and corners [K, 4] in pixels.

    Args:
        values, lines, at: the rows, their lines, their images.
        sizes: [I, 2] pixels of the images.
        listed, first: all images, and which of them is the first here.
        told: takes what is to be said of a box, by the image.
    """
    limits = sizes[at].astype(np.float64)
    with np.errstate(over="ignore", invalid="ignore"):
        half = values[:, 3:5] / 2
        corners = np.concatenate([values[:, 1:3] - half, values[:, 1:3] + half], axis=1)
        corners *= np.concatenate([limits, limits], axis=1)
    clean = clean_boxes(corners, limits)

    def tell(kind: str, row: int, message: str) -> None:
        number = first + int(at[row])
        text = f"line {lines[row]}: {message}"
        told[number].append(Problem(kind, str(listed.labels[number]), text, number + 1, severity="warning"))

    def size(row: int) -> tuple[int, int]:
        return int(limits[row, 0]), int(limits[row, 1])

    for row in np.flatnonzero(~clean.kept).tolist():
        message = drop_reason(corners[row], bool(clean.outside[row]), size(row))
        if clean.outside[row] and values[row, 1:].max() > 2:
            message += " (are its numbers pixels? YOLO's are parts of the image, 0 to 1)"
        tell("box_dropped", row, message)
    for row in np.flatnonzero(clean.clipped).tolist():
        tell("box_clipped", row, clip_reason(corners[row], size(row)))
    return clean.kept, at[clean.kept], clean.boxes[clean.kept]
