"""YOLO folders: a `data.yaml` naming splits and classes, and one label txt beside every image.

A line of a label file is `class cx cy w h`, normalised by the image's width and height as stored, or a polygon
`class x1 y1 x2 y2 x3 y3 ...`, which becomes its enclosing box; where the yaml has a `kpt_shape`, keypoints may follow
the box, and are left out. An image without a label file has no object.

What is looked for where: the yaml's and lists' paths in `yolo_paths`, label files in `yolo_labels`, datasets without a
yaml in `yolo_plain`.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import islice
from pathlib import Path

import numpy as np

from tood.data.dataset import DetectionDataset, ImageRecord, Problem
from tood.data.files import any_images, may_hold, passed_over_line
from tood.data.formats.folder import (
    SplitInfo,
    box_areas,
    canonical,
    clean_boxes,
    clip_reason,
    drop_reason,
)
from tood.data.formats.yolo_labels import Keypoints, LabelFinder, LabelTable, label_path, looks_like_labels, read_labels
from tood.data.formats.yolo_paths import ListRemarks, images_of
from tood.data.formats.yolo_plain import find_plain_layout
from tood.data.formats.yolo_poses import MOST_LINES, find_poses
from tood.data.formats.yolo_yaml import YoloLayout, find_inner_yaml, find_yaml, read_layout
from tood.data.images import FileFacts, file_facts
from tood.errors import ToodError
from tood.file_identity import FileIdentity, file_identity

__all__ = ["YoloFolder", "find_yolo", "label_path"]

_MOST_FOLDERS = 1000


@dataclass(frozen=True)
class _Listed:
    """One image of a split: its name inside it, its file's identity, and the files that may be its labels."""

    name: str
    identity: FileIdentity
    labels: tuple[Path, ...]

    @property
    def label(self) -> Path | None:
        """The label file; None if there is none."""
        return self.labels[0] if self.labels else None


@dataclass(frozen=True)
class YoloFolder:
    """A YOLO dataset: what its yaml says."""

    root: Path
    layout: YoloLayout
    format: str = "yolo"
    _finder: LabelFinder = field(default_factory=LabelFinder)

    @property
    def missing(self) -> Mapping[str, str]:
        """See `DatasetFolder.missing`."""
        return self.layout.missing

    @cached_property
    def splits(self) -> Mapping[str, SplitInfo]:
        """See `DatasetFolder.splits`."""
        return {name: SplitInfo(name, self.layout.source, self._has_labels(name)) for name in self.layout.places}

    def read(self, split: str, images_required: bool) -> DetectionDataset:
        """See `DatasetFolder.read`; sizes come from the image files, so they are needed in any case."""
        problems = list(self.layout.problems)
        remarks = ListRemarks()
        listed = self._listed(split, problems, remarks)
        images: list[ImageRecord] = []
        tables, poses = self._tables(split, {path: own.label for path, own in listed.items()})
        tracks, next_box = 0, 1
        for number, (path, own) in enumerate(listed.items(), start=1):
            try:
                facts = file_facts(path)
            except ToodError as error:
                problems.append(Problem.unreadable(path, error))
                continue
            table, found = tables[path]
            problems.extend(replace(problem, image_id=number) for problem in found)
            tracks += table.tracks
            record = _record(number, path, own.name, facts, table, str(own.label), next_box, problems)
            next_box += len(record.boxes)
            images.append(record)
        labelled = {path: own.label for path, own in listed.items() if own.label is not None}
        if images and not labelled and canonical(split) != "test":
            message = (
                f"none of its {len(images)} images has a label file (looked for {label_path(images[0].path)} and so on)"
                f"{_labels_elsewhere(images[0].path, self.layout.source.parent)}"
            )
            problems.append(Problem("labels_missing", str(self.layout.source), message))
        if labelled and not images and not any(path.exists() for path in listed):
            message = (
                f"none of the {len(listed)} pictures of split {split!r} is there, though their labels are: export the "
                f"dataset with its pictures (in CVAT 'Save images'), or put them where {next(iter(listed))} is expected"
            )
            problems.insert(0, Problem("images_missing", str(self.layout.source), message))
        problems.extend(_shared_labels(labelled))
        problems.extend(self._in_earlier_split(split, listed))
        problems.extend(self._labels_of_other_splits(split, labelled))
        return DetectionDataset(
            self.root,
            split,
            "yolo",
            self.layout.categories,
            tuple(images),
            tuple(problems),
            bool(labelled),
            self.layout.source,
            (*self.layout.places[split], *labelled.values()),
            (*poses, *self._notes(split, listed, tracks, remarks)),
            self.layout.exif,
        )

    def _tables(
        self, split: str, labels: Mapping[Path, Path | None]
    ) -> tuple[dict[Path, tuple[LabelTable, list[Problem]]], list[str]]:
        """The labels of images with what is wrong in them, and what is to be told about poses among them."""
        tables: dict[Path, tuple[LabelTable, list[Problem]]] = {}
        polygons: list[Sequence[float]] = []  # the first of them: a large dataset has millions of points
        counts: dict[Path, int] = {}
        lengths: set[int] = set()
        for image, label in labels.items():
            table, found = self._table(label, self.layout.keypoints)
            if table.polygons:
                counts[image] = len(table.polygons)
                lengths.update(map(len, table.polygons))
                polygons.extend(islice(table.polygons, max(0, MOST_LINES - len(polygons))))
                table = replace(table, polygons=())
            tables[image] = (table, found)
        if self.layout.polygons_only or len(lengths) > 1 or (poses := find_poses(polygons)) is None:
            return tables, []
        if not poses.clear:  # other splits may tell more
            others = (image for other in self.layout.places if other != split for image in self._named(other))
            more = (line for image in others for line in self._table(self._finder.find(image), None)[0].polygons)
            poses = find_poses([*islice(more, MOST_LINES), *polygons]) or poses
        shape = f"`kpt_shape: [{poses.keypoints.points}, {poses.keypoints.numbers}]`"
        told = f"{sum(counts.values())} lines of labels have {poses.keypoints.columns} numbers"
        if not poses.clear:
            return tables, [
                f"{told} and are taken for polygons; if they are boxes with keypoints, add {shape} to the yaml"
            ]
        again = {image: self._table(labels[image], poses.keypoints) for image in counts}
        return tables | again, [
            f"{told}, a box with {poses.keypoints.points} keypoints: the box is taken; {shape} in the yaml says so, "
            "`kpt_shape: []` that they are polygons"
        ]

    def _table(self, label: Path | None, keypoints: Keypoints | None) -> tuple[LabelTable, list[Problem]]:
        problems: list[Problem] = []
        return read_labels(label, 0, len(self.layout.categories), keypoints, problems), problems

    def _named(self, split: str) -> dict[Path, str]:
        """Every path that a split names, with its name inside the split; sorted."""
        named: dict[Path, str] = {}
        for place in self.layout.places[split]:
            for path, name in images_of(place, self.layout.source):
                named.setdefault(path, name)
        return dict(sorted(named.items()))

    def _listed(self, split: str, problems: list[Problem], remarks: ListRemarks) -> dict[Path, _Listed]:
        """The images of a split, each file once, whatever paths and links lead to it."""
        groups: dict[FileIdentity, list[tuple[Path, _Listed]]] = {}
        for place in self.layout.places[split]:
            for path, name in images_of(place, self.layout.source, remarks):
                identity = file_identity(path)
                groups.setdefault(identity, []).append((path, _Listed(name, identity, self._finder.find_all(path))))
        chosen = []
        for group in groups.values():
            if len(group) == 1:
                chosen.append(group[0])
                continue
            labels = {path: own.label for path, own in group if own.label is not None}
            # Of several names the one that has labels, and rather no link.
            best = min(group, key=lambda named: (named[0] not in labels, named[0].is_symlink(), named[0]))
            chosen.append(best)
            others = sorted({str(path) for path, _ in group} - {str(best[0])})
            message = "is named twice in its split" + (f", also as {others[0]}" if others else "") + ": taken once"
            problems.append(Problem("duplicate_file", str(best[0]), message, severity="warning"))
            if len({file_identity(label) for label in labels.values()}) > 1 and not _alike(labels.values()):
                told = " and ".join(map(str, sorted(labels.values())[:2]))
                message = f"is one picture of several names whose labels differ ({told}): remove all but one"
                problems.append(Problem("labels_differ", str(best[0]), message))
        return dict(sorted(chosen))

    def _in_earlier_split(self, split: str, listed: Mapping[Path, _Listed]) -> list[Problem]:
        """A warning for each image that another split has, too: what is measured on it says nothing."""
        problems = []
        identities = {own.identity for own in listed.values()}
        for other, places in self.layout.places.items():
            if other == split:
                break
            if "trainval" in (split, other) or not any(may_hold(place, identities) for place in places):
                continue
            theirs = {file_identity(path): path for path in self._named(other)}
            for path, own in listed.items():
                if (same := theirs.get(own.identity)) is not None:
                    message = f"is in split {other!r}, too" + (f", as {same}" if same != path else "")
                    problems.append(Problem("in_two_splits", str(path), message, severity="warning"))
        return problems

    def _labels_of_other_splits(self, split: str, labelled: Mapping[Path, Path]) -> list[Problem]:
        """An error for each label file that would be that of another picture in another split, too."""
        owners = {label: image for image, label in labelled.items()}
        problems = []
        for other, places in self.layout.places.items():
            # Pictures of two folders have their labels in two folders.
            apart = all(place.is_dir() for place in (*places, *self.layout.places[split]))
            if other == split or apart:
                continue
            for path in self._named(other):
                label = self._finder.find(path)
                if label is None or label not in owners or owners[label] == path:
                    continue
                if file_identity(owners[label]) != file_identity(path):
                    problems.append(_shared(label, (owners[label], path)))
        return problems

    def _notes(self, split: str, listed: Mapping[Path, _Listed], tracks: int, remarks: ListRemarks) -> tuple[str, ...]:
        notes = []
        if split == next(iter(self.layout.places)):  # of the whole folder: said once
            notes += [*self.layout.notes, *(f"{sentence}: left out" for sentence in self.layout.missing.values())]
        bare = sum(own.label is None for own in listed.values())
        if 0 < bare < len(listed):
            notes.append(f"{bare} of {len(listed)} pictures have no label file: nothing is on them")
        if moved := remarks.moved:
            notes.append(
                f"{len(moved)} listed pictures are not where {moved[0]!r} says: found by the ends of their paths"
            )
        if flagged := remarks.flagged:
            notes.append(f"{len(flagged)} lines of lists end in a number ({flagged[0]!r}), which is left out")
        if tracks:
            notes.append(f"{tracks} lines of labels end in a whole number, taken for a track id and left out")
        folders = [place for place in self.layout.places[split] if place.is_dir()]
        places = folders or list(dict.fromkeys(path.parent for path in listed))
        unused = self._finder.unused((own.labels for own in listed.values()), places)
        line = passed_over_line({**remarks.passed_over, **unused})
        return (*notes, line) if line else tuple(notes)

    def _has_labels(self, split: str) -> bool:
        """Whether any image of a split has a label file."""
        for place in self.layout.places[split]:
            images = any_images(place) if place.is_dir() else (path for path, _ in images_of(place, self.layout.source))
            if any(self._finder.find(path) is not None for path in images):
                return True
        return False


def find_yolo(root: Path) -> YoloFolder | None:
    """The YOLO dataset of a folder or a yaml file; None if there is none.

    Raises:
        ToodError: if there is a yaml, but it is broken or names nothing usable.
    """
    source = find_yaml(root)
    if source is not None:
        return YoloFolder(root, read_layout(source))
    if root.is_file():
        return None
    layout = find_plain_layout(root)
    if layout is None and (source := find_inner_yaml(root)) is not None:
        layout = read_layout(source)
    return None if layout is None else YoloFolder(root, layout)


def _record(
    number: int,
    path: Path,
    name: str,
    facts: FileFacts,
    table: LabelTable,
    file: str,
    first_id: int,
    problems: list[Problem],
) -> ImageRecord:
    """The record of one image; `file` is where its labels are, `first_id` the annotation id of its first box."""
    values, lines, size = table.rows, table.lines, facts.size
    with np.errstate(over="ignore", invalid="ignore"):
        half = values[:, 3:5] / 2
        corners = np.concatenate([values[:, 1:3] - half, values[:, 1:3] + half], axis=1)
        corners *= np.array([*size, *size], np.float64)
    clean = clean_boxes(corners, np.full((len(corners), 2), size, np.float64))
    for row in np.flatnonzero(~clean.kept).tolist():
        message = f"line {lines[row]}: {drop_reason(corners[row], bool(clean.outside[row]), size)}"
        if clean.outside[row] and values[row, 1:].max() > 2:
            message += " (are its numbers pixels? YOLO's are parts of the image, 0 to 1)"
        problems.append(Problem("box_dropped", file, message, number, severity="warning"))
    for row in np.flatnonzero(clean.clipped).tolist():
        message = f"line {lines[row]}: {clip_reason(corners[row], size)}"
        problems.append(Problem("box_clipped", file, message, number, severity="warning"))
    boxes = clean.boxes[clean.kept]
    return ImageRecord(
        id=number,
        path=path,
        width=size[0],
        height=size[1],
        boxes=boxes,
        labels=values[clean.kept, 0].astype(np.int64),
        crowd=np.zeros(len(boxes), np.bool_),
        areas=box_areas(boxes),
        annotation_ids=np.arange(first_id, first_id + len(boxes), dtype=np.int64),
        file_name=name,
        size_from_file=True,
        orientation=facts.orientation,
    )


def _shared_labels(labelled: Mapping[Path, Path]) -> list[Problem]:
    """An error for each label file that two images have in common: whose it is cannot be known."""
    owners: dict[Path, list[Path]] = {}
    for image, label in labelled.items():
        owners.setdefault(label, []).append(image)
    return [_shared(label, images) for label, images in owners.items() if len(images) > 1]


def _shared(label: Path, images: Sequence[Path]) -> Problem:
    message = (
        f"would be the label file of {' and '.join(map(str, images))}: whose it is cannot be known; "
        "rename or remove all but one of the pictures"
    )
    return Problem("labels_shared", str(label), message)


def _labels_elsewhere(image: Path, home: Path) -> str:
    """Where there is a label file of the image's name, if it is in another folder than was looked in."""
    for parent, _, files in islice(os.walk(home), _MOST_FOLDERS):
        if f"{image.stem}.txt" in files and looks_like_labels(Path(parent, f"{image.stem}.txt")):
            target = label_path(image).parent
            return f", but there is one in {parent}: move such files to {target}"
    return ""


def _alike(labels: Iterable[Path]) -> bool:
    try:
        return len({label.read_bytes() for label in labels}) == 1
    except OSError:
        return False
