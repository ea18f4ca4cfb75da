"""YOLO's label files: which one belongs to an image, and what its lines say."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from tood.data.dataset import Problem
from tood.data.files import IMAGE_SUFFIXES, ORPHAN_LABELS, SECOND_LABELS
from tood.data.formats.text import read_text

NAMES_FILES = ("classes.txt", "predefined_classes.txt")
"""Text files that lie among labels and hold the names of the classes."""

# Darknet, too, takes the labels of JPEGImages/ from labels/.
_IMAGE_FOLDERS = ("images", "jpegimages")


@dataclass(frozen=True)
class LabelTable:
    """The lines of one label file.

    Attributes:
        rows: [G, 5] float64 `class cx cy w h`, parts of the image.
        lines: the line of each row, from 1.
        tracks: how many of them end in a track id, which is left out.
        polygons: the numbers of each line that was taken for a polygon.
    """

    rows: NDArray[np.float64]
    lines: Sequence[int]
    tracks: int = 0
    polygons: Sequence[Sequence[float]] = ()


@dataclass(frozen=True)
class Keypoints:
    """The `kpt_shape` of a yaml: points an object, and numbers a point (2: x y, 3: with its visibility)."""

    points: int
    numbers: int

    @property
    def columns(self) -> int:
        """Numbers on a line: class, box, keypoints."""
        return 5 + self.points * self.numbers


@dataclass(frozen=True)
class LabelFinder:
    """Finds the label files of images; every folder is listed once.

    An image in `.../images/...` has its labels in `.../labels/...` (the last folder of that name counts first), in
    whatever case the two are written, else beside it.
    """

    _listings: dict[Path, dict[str, str]] = field(default_factory=dict)
    _folders: dict[Path, tuple[Path, ...]] = field(default_factory=dict)

    def find(self, image: Path) -> Path | None:
        """The label file of an image; None if it has none."""
        return next(iter(self.find_all(image)), None)

    def find_all(self, image: Path) -> tuple[Path, ...]:
        """The files that may be an image's labels: the first one is."""
        stem = _key(image.stem)
        return tuple(
            folder / name
            for folder in self.folders(image.parent)
            if (name := self._labels_in(folder).get(stem)) is not None
        )

    def folders(self, parent: Path) -> tuple[Path, ...]:
        """The folders that may hold the labels of the images in `parent`, the likeliest first."""
        if parent not in self._folders:
            found = dict.fromkeys((*_label_folders(parent), parent))
            self._folders[parent] = tuple(folder for folder in found if self._labels_in(folder))
        return self._folders[parent]

    def unused(self, found: Iterable[tuple[Path, ...]], places: Iterable[Path]) -> dict[str, tuple[Path, ...]]:
        """Label files that say something about no picture, by the reason.

        Args:
            found: of each picture of a split what `find_all` gave.
            places: the folders in which they were looked for, with whatever sub-folders.
        """
        used: dict[Path, set[str]] = {}
        second: list[Path] = []
        for labels in found:
            for label in labels:
                used.setdefault(label.parent, set()).add(label.name)
            second.extend(labels[1:])
        # Of every folder that labels were looked for in, the stems of all pictures there are, other splits' among them.
        stems: dict[Path, set[str]] = {}
        for parent, folders in self._folders.items():
            names = _pictures_in(parent)
            for folder in folders:
                stems.setdefault(folder, set()).update(names)
        looked_at = dict.fromkeys(used)
        for tree in (folder for place in places for folder in _label_folders(place)):
            looked_at |= dict.fromkeys(Path(parent) for parent, _, _ in os.walk(tree))
        orphans = [
            folder / name
            for folder in looked_at
            for stem, name in self._labels_in(folder).items()
            if name not in used.get(folder, ())
            and name.lower() not in NAMES_FILES
            and stem not in stems.get(folder, ())
        ]
        orphans = [path for path in orphans if looks_like_labels(path)]  # no README, no list
        told = {ORPHAN_LABELS: orphans, SECOND_LABELS: second}
        return {reason: tuple(sorted(paths)) for reason, paths in told.items() if paths}

    def _labels_in(self, folder: Path) -> dict[str, str]:
        """Names of the txt files in a folder, by their stems."""
        if folder not in self._listings:
            try:
                names = sorted(os.listdir(folder))  # noqa: PTH208  (names alone are wanted)
            except (OSError, ValueError):
                names = []
            stems_suffixes = [(os.path.splitext(name), name) for name in names]  # noqa: PTH122  (as above)
            self._listings[folder] = {
                _key(stem): name
                for (stem, suffix), name in stems_suffixes
                if suffix.lower() == ".txt" and not name.startswith(".")
            }
        return self._listings[folder]


def label_path(image: Path) -> Path:
    """Where the label file of an image is written: in `labels/` for the last folder called `images/`, ending in txt."""
    parts = list(image.parts)
    for at in range(len(parts) - 2, -1, -1):
        if parts[at] == "images":
            parts[at] = "labels"
            break
    return Path(*parts).with_suffix(".txt")


def read_labels(
    path: Path | None, image_id: int, classes: int, keypoints: Keypoints | None, problems: list[Problem]
) -> LabelTable:
    """The rows of a label file (none without one); a line that cannot be read becomes an error in `problems`."""
    if path is None:
        return LabelTable(np.zeros((0, 5)), [])
    try:
        text = read_text(path)
    except (OSError, ValueError) as error:
        problems.append(Problem("wrong_type", str(path), f"cannot be read as text ({error})", image_id))
        return LabelTable(np.zeros((0, 5)), [])
    rows, lines, polygons, tracks = [], [], [], 0
    for number, line in enumerate(text.splitlines(), start=1):
        words = _words(line)
        if not words:
            continue
        if _ends_in_track(words, keypoints):
            words, tracks = words[:-1], tracks + 1
        parsed = _parse_line(words, classes, keypoints)
        if isinstance(parsed, _Fault):
            problems.append(Problem(parsed.kind, str(path), f"line {number}: {parsed.sentence}", image_id))
            continue
        rows.append(parsed)
        lines.append(number)
        if len(words) > 5 and keypoints is None:
            polygons.append([float(word) for word in words])
    return LabelTable(np.array(rows, np.float64).reshape(-1, 5), lines, tracks, polygons)


def looks_like_labels(path: Path) -> bool:
    """Whether a text file seems to hold labels: it is empty, or its first line is a class and four or more numbers."""
    try:
        first = next((words for line in read_text(path).splitlines() if (words := _words(line))), [])
        return not first or (len(first) >= 5 and all(np.isfinite(float(word)) for word in first))
    except (OSError, ValueError):
        return False


def _words(line: str) -> list[str]:
    """The numbers of a line as written, between blanks, tabs or commas."""
    words = line.split()
    if len(words) == 1:
        return [word.strip() for word in words[0].split(",")]
    # A comma inside of a word may be a decimal one: `0,5` is refused, not taken for two numbers.
    if len(words) > 1 and all(word.endswith(",") for word in words[:-1]):
        return [word.rstrip(",") for word in words]
    return words


def _ends_in_track(words: Sequence[str], keypoints: Keypoints | None) -> bool:
    """Whether a line is a box (or pose) with one more whole number: CVAT writes track ids so."""
    return len(words) == (keypoints.columns if keypoints else 5) + 1 and words[-1].isascii() and words[-1].isdigit()


@dataclass(frozen=True)
class _Fault:
    """What is wrong with a line: the kind of the problem, and a sentence."""

    kind: Literal["wrong_type", "unknown_category"]
    sentence: str


def _parse_line(words: Sequence[str], classes: int, keypoints: Keypoints | None) -> list[float] | _Fault:
    """`class cx cy w h` of a line, or what is wrong with it."""
    try:
        values = [float(word) for word in words]
    except ValueError:
        return _Fault("wrong_type", f"{' '.join(words)[:60]!r} is not made of numbers")
    if any("_" in word for word in words):  # a number for Python alone
        return _Fault("wrong_type", f"{' '.join(words)[:60]!r} is not made of numbers")
    posed = keypoints is not None and len(values) == keypoints.columns
    if len(values) != 5 and not posed:
        if keypoints is not None:
            return _Fault(
                "wrong_type",
                f"has {len(values)} numbers, not `class cx cy w h` or, as 'kpt_shape' is "
                f"[{keypoints.points}, {keypoints.numbers}], {keypoints.columns}",
            )
        if len(values) == 6:
            return _Fault(
                "wrong_type",
                "has 6 numbers, not `class cx cy w h`: if the sixth is a confidence, these are a detector's "
                "predictions, not labels; cut the last column if they are to be learned from",
            )
        if len(values) < 7 or len(values) % 2 == 0:
            told = f"has {len(values)} numbers, not `class cx cy w h` or a polygon `class x1 y1 x2 y2 x3 y3 ...`"
            more = len(values) - 5
            if more <= 0 or more % 3:
                return _Fault("wrong_type", told)
            told += f"; if it is a box with keypoints, add `kpt_shape: [{more // 3}, 3]` to the data.yaml"
            return _Fault("wrong_type", told)
    label = values[0]
    if not 0 <= label < classes or label != int(label):
        return _Fault("unknown_category", f"class {words[0]} is not among the {classes} classes, 0 to {classes - 1}")
    if len(values) == 5 or posed:
        return values[:5]
    x, y = values[1::2], values[2::2]
    if not np.isfinite(values).all():
        return [label, np.nan, np.nan, np.nan, np.nan]
    return [label, (min(x) + max(x)) / 2, (min(y) + max(y)) / 2, max(x) - min(x), max(y) - min(y)]


def _label_folders(parent: Path) -> list[Path]:
    """The folders that `labels` for one of the folders called `images` leads to, for images in `parent`."""
    parts = parent.parts
    found: list[Path] = []
    for at in range(len(parts) - 1, -1, -1):
        if parts[at].lower() in _IMAGE_FOLDERS:
            above, below = Path(*parts[:at]), parts[at + 1 :]
            found.extend(above.joinpath(labels, *below) for labels in _spellings(above, "labels"))
    return found


def _spellings(folder: Path, name: str) -> list[str]:
    """The names of sub-folders that differ from `name` in case at most; `name` itself first."""
    try:
        names = sorted(os.listdir(folder))  # noqa: PTH208  (names alone are wanted)
    except (OSError, ValueError):
        return []
    return sorted((found for found in names if found.lower() == name), key=lambda found: found != name)


def _pictures_in(folder: Path) -> set[str]:
    """Stems of the picture files in a folder."""
    try:
        names = os.listdir(folder)  # noqa: PTH208  (names alone are wanted)
    except (OSError, ValueError):
        return set()
    parts = map(os.path.splitext, names)  # names alone
    return {_key(stem) for stem, suffix in parts if suffix.lower() in IMAGE_SUFFIXES}


def _key(stem: str) -> str:
    """A stem as it is compared: macOS writes accents as letters of their own."""
    return unicodedata.normalize("NFC", stem)
