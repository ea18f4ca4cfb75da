"""YOLO folders: a `data.yaml` naming splits and classes, and one label txt beside every image.

A line of a label file is `class cx cy w h`, normalised by the image's width and height as stored, or a polygon
`class x1 y1 x2 y2 x3 y3 ...`, which becomes its enclosing box; where the yaml has a `kpt_shape`, keypoints may follow
the box, and are left out. An image without a label file has no object.

What is looked for where: the yaml's and lists' paths in `yolo_paths`, label files in `yolo_labels`, datasets without a
yaml in `yolo_plain`.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import islice
from pathlib import Path

from tood.data.columns import PathColumn
from tood.data.dataset import DetectionDataset, Problem
from tood.data.files import any_images, may_hold, passed_over_line
from tood.data.formats.folder import SplitInfo, canonical
from tood.data.formats.yolo_images import LabelColumns, ListedImages, read_images
from tood.data.formats.yolo_labels import Keypoints, LabelFinder, LabelTable, label_path, looks_like_labels, read_labels
from tood.data.formats.yolo_paths import ListRemarks, images_of
from tood.data.formats.yolo_plain import find_plain_layout
from tood.data.formats.yolo_poses import MOST_LINES, find_poses
from tood.data.formats.yolo_yaml import YoloLayout, find_inner_yaml, find_yaml, read_layout
from tood.file_identity import file_identity

__all__ = ["YoloFolder", "find_yolo", "label_path"]

_MOST_FOLDERS = 1000


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
        labels, poses = self._labels(split, listed)
        images = read_images(listed, labels, problems)
        tracks = int(labels.tracks[images.ids - 1].sum())
        annotated = bool(listed.labelled.any())
        if len(images) and not annotated and canonical(split) != "test":
            first = images.paths[0]
            message = (
                f"none of its {len(images)} images has a label file (looked for {label_path(first)} and so on)"
                f"{_labels_elsewhere(first, self.layout.source.parent)}"
            )
            problems.append(Problem("labels_missing", str(self.layout.source), message))
        if annotated and not len(images) and not any(path.exists() for path in listed.paths):
            message = (
                f"none of the {len(listed)} pictures of split {split!r} is there, though their labels are: export the "
                f"dataset with its pictures (in CVAT 'Save images'), or put them where {listed.paths[0]} is expected"
            )
            problems.insert(0, Problem("images_missing", str(self.layout.source), message))
        problems.extend(_shared(label, images_of_it) for label, images_of_it in listed.sharing_labels())
        problems.extend(self._in_earlier_split(split, listed))
        problems.extend(self._labels_of_other_splits(split, listed))
        return DetectionDataset(
            self.root,
            split,
            "yolo",
            self.layout.categories,
            images,
            tuple(problems),
            annotated,
            self.layout.source,
            PathColumn.of((*map(str, self.layout.places[split]), *listed.label_files.texts())),
            (*poses, *self._notes(split, listed, tracks, remarks)),
            self.layout.exif,
        )

    def _labels(self, split: str, listed: ListedImages) -> tuple[LabelColumns, list[str]]:
        """What the labels of images say, and what is to be told about poses among them."""
        polygons: list[Sequence[float]] = []  # the first of them: a large dataset has millions of points
        lengths: set[int] = set()

        def look(table: LabelTable) -> None:
            lengths.update(map(len, table.polygons))
            polygons.extend(islice(table.polygons, max(0, MOST_LINES - len(polygons))))

        def label(at: int) -> Path | None:
            return listed.labels[at] if listed.labelled[at] else None

        labels = LabelColumns.of(len(listed), lambda at: self._table(label(at), self.layout.keypoints), look)
        if self.layout.polygons_only or len(lengths) > 1 or (poses := find_poses(polygons)) is None:
            return labels, []
        if not poses.clear:  # other splits may tell more
            others = (image for other in self.layout.places if other != split for image in self._named(other))
            more = (line for image in others for line in self._table(self._finder.find(image), None)[0].polygons)
            poses = find_poses([*islice(more, MOST_LINES), *polygons]) or poses
        keypoints = poses.keypoints
        shape = f"`kpt_shape: [{keypoints.points}, {keypoints.numbers}]`"
        told = f"{labels.polygons.sum()} lines of labels have {keypoints.columns} numbers"
        if not poses.clear:
            return labels, [
                f"{told} and are taken for polygons; if they are boxes with keypoints, add {shape} to the yaml"
            ]
        posed = labels.polygons > 0
        again = LabelColumns.of(
            len(listed), lambda at: self._table(label(at), keypoints if posed[at] else self.layout.keypoints)
        )
        return again, [
            f"{told}, a box with {keypoints.points} keypoints: the box is taken; {shape} in the yaml says so, "
            "`kpt_shape: []` that they are polygons"
        ]

    def _table(self, label: Path | None, keypoints: Keypoints | None) -> tuple[LabelTable, list[Problem]]:
        problems: list[Problem] = []
        return read_labels(label, 0, len(self.layout.categories), keypoints, problems), problems

    def _named(self, split: str) -> list[Path]:
        """Every path that a split names, once; sorted."""
        places = self.layout.places[split]
        return sorted({path for place in places for path, _ in images_of(place, self.layout.source)})

    def _listed(self, split: str, problems: list[Problem], remarks: ListRemarks) -> ListedImages:
        """The images of a split, each file once, whatever paths and links lead to it."""
        places = self.layout.places[split]
        named = (named for place in places for named in images_of(place, self.layout.source, remarks))
        return ListedImages.of(named, self._finder, problems)

    def _in_earlier_split(self, split: str, listed: ListedImages) -> list[Problem]:
        """A warning for each image that another split has, too: what is measured on it says nothing."""
        problems = []
        identities = set(listed.identities) if split != next(iter(self.layout.places)) else set()
        for other, places in self.layout.places.items():
            if other == split:
                break
            if "trainval" in (split, other) or not any(may_hold(place, identities) for place in places):
                continue
            theirs = {own: path for path in self._named(other) if (own := file_identity(path)) in identities}
            for at, identity in enumerate(listed.identities):
                if (same := theirs.get(identity)) is not None:
                    path = listed.paths[at]
                    message = f"is in split {other!r}, too" + (f", as {same}" if same != path else "")
                    problems.append(Problem("in_two_splits", str(path), message, severity="warning"))
        return problems

    def _labels_of_other_splits(self, split: str, listed: ListedImages) -> list[Problem]:
        """An error for each label file that would be that of another picture in another split, too."""
        owners: dict[str, int] = {}
        problems = []
        for other, places in self.layout.places.items():
            # Pictures of two folders have their labels in two folders.
            apart = all(place.is_dir() for place in (*places, *self.layout.places[split]))
            if other == split or apart:
                continue
            owners = owners or {label: at for at, label in enumerate(listed.labels.texts()) if label}
            for path in self._named(other):
                label = self._finder.find(path)
                at = None if label is None else owners.get(str(label))
                if label is None or at is None or listed.paths[at] == path:
                    continue
                if listed.identities[at] != file_identity(path):
                    problems.append(_shared(label, (listed.paths[at], path)))
        return problems

    def _notes(self, split: str, listed: ListedImages, tracks: int, remarks: ListRemarks) -> tuple[str, ...]:
        notes = []
        if split == next(iter(self.layout.places)):  # of the whole folder: said once
            notes += [*self.layout.notes, *(f"{sentence}: left out" for sentence in self.layout.missing.values())]
        bare = int((~listed.labelled).sum())
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
        places = folders or [folder for folder, _ in listed.paths.by_folder()]
        unused = self._finder.unused(map(self._finder.find_all, listed.paths), places)
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
