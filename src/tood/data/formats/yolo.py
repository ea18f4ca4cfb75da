"""YOLO folders: a `data.yaml` naming splits and classes, and one label txt beside every image.

A line of a label file is `class cx cy w h`, normalised by the image's width and height as stored, or a polygon
`class x1 y1 x2 y2 x3 y3 ...`, which becomes its enclosing box. An image without a label file has no object.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray

from tood.data.dataset import Category, DetectionDataset, ImageRecord, Problem
from tood.data.files import IMAGE_SUFFIXES, find_images
from tood.data.formats.folder import (
    SplitInfo,
    box_areas,
    canonical,
    clean_boxes,
    clip_reason,
    drop_reason,
)
from tood.data.images import image_size
from tood.errors import ToodError

_YAML_NAMES = ("data.yaml", "data.yml", "dataset.yaml", "dataset.yml")
_SPLIT_KEYS = ("train", "val", "valid", "validation", "trainval", "test")


@dataclass(frozen=True)
class YoloFolder:
    """A YOLO dataset: its yaml and, for each split, the folders or lists that it names."""

    root: Path
    source: Path
    categories: tuple[Category, ...]
    places: Mapping[str, tuple[Path, ...]]
    splits: Mapping[str, SplitInfo]
    names_problems: tuple[Problem, ...] = ()
    format: str = "yolo"

    def read(self, split: str, images_required: bool) -> DetectionDataset:
        """See `DatasetFolder.read`; sizes come from the image files, so they are needed in any case."""
        problems = list(self.names_problems)
        named: dict[Path, str] = {}
        for place in self.places[split]:
            for path, name in _images_of(place, self.source):
                if path in named:
                    message = "is named twice in its split: taken once"
                    problems.append(Problem("duplicate_file", str(path), message, severity="warning"))
                named.setdefault(path, name)
        images: list[ImageRecord] = []
        next_box = 1
        label_files: list[Path] = []
        for number, (path, name) in enumerate(sorted(named.items()), start=1):
            try:
                size = image_size(path)
            except ToodError as error:
                kind = "image_unreadable" if path.exists() else "image_missing"
                problems.append(Problem(kind, str(path), str(error), number))
                continue
            labels_file = label_path(path)
            if labels_file.is_file():
                label_files.append(labels_file)
            record = self._record(number, path, name, size, labels_file, next_box, problems)
            next_box += len(record.boxes)
            images.append(record)
        annotated = bool(label_files)
        if images and not annotated and canonical(split) != "test":
            message = (
                f"none of its {len(images)} images has a label file (looked for {label_path(images[0].path)} and so on)"
            )
            problems.append(Problem("labels_missing", str(self.source), message))
        return DetectionDataset(
            self.root,
            split,
            "yolo",
            self.categories,
            tuple(images),
            tuple(problems),
            annotated,
            self.source,
            (*self.places[split], *label_files),
        )

    def _record(
        self,
        number: int,
        path: Path,
        name: str,
        size: tuple[int, int],
        labels_file: Path,
        first_id: int,
        problems: list[Problem],
    ) -> ImageRecord:
        """The record of one image; `first_id` is the annotation id of its first box."""
        values, lines = _read_labels(labels_file, number, len(self.categories), problems)
        file = str(labels_file)
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
        )


def find_yolo(root: Path) -> YoloFolder | None:
    """The YOLO dataset of a folder or a yaml file; None if there is none.

    Raises:
        ToodError: if there is a yaml, but it is broken or names nothing usable.
    """
    source = _find_yaml(root)
    if source is None:
        return None
    raw = _read_yaml(source)
    categories, problems = _categories(raw, source)
    base = _base_folder(raw, source)
    places: dict[str, tuple[Path, ...]] = {}
    for key in _SPLIT_KEYS:
        if raw.get(key) in (None, "", []):
            continue
        places.setdefault(
            canonical(key), tuple(_place(entry, key, base, source) for entry in _entries(raw, key, source))
        )
    if not places:
        raise ToodError(
            f"{source}: names no split: give it 'train' and 'val', each a folder of images or a txt list of them"
        )
    splits = {name: SplitInfo(name, source, _has_labels(found)) for name, found in places.items()}
    return YoloFolder(root, source, categories, places, splits, tuple(problems))


def label_path(image: Path) -> Path:
    """The label file of an image: `labels/` for the last folder called `images/`, txt for the suffix."""
    parts = list(image.parts)
    for at in range(len(parts) - 2, -1, -1):
        if parts[at] == "images":
            parts[at] = "labels"
            break
    return Path(*parts).with_suffix(".txt")


def _find_yaml(root: Path) -> Path | None:
    if root.is_file():
        return root if root.suffix.lower() in (".yaml", ".yml") else None
    for name in _YAML_NAMES:
        if (root / name).is_file():
            return root / name
    others = sorted([*root.glob("*.yaml"), *root.glob("*.yml")])
    # Some other tool's settings may lie there: the names of the classes tell a dataset.
    datasets = [path for path in others if _looks_like_dataset(path)]
    return datasets[0] if len(datasets) == 1 else None


def _looks_like_dataset(path: Path) -> bool:
    try:
        raw = _read_yaml(path)
    except ToodError:
        return False
    return "names" in raw and any(key in raw for key in _SPLIT_KEYS)


def _read_yaml(source: Path) -> dict[Any, Any]:
    try:
        raw = yaml.safe_load(source.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise ToodError(f"{source}: broken yaml: {' '.join(str(error).split())}") from None
    except (OSError, ValueError, RecursionError, TypeError) as error:
        raise ToodError(f"{source}: cannot be read as yaml ({' '.join(str(error).split())})") from None
    if not isinstance(raw, dict):
        raise ToodError(f"{source}: is yaml, but no YOLO dataset: keys 'train', 'val' and 'names' are expected")
    return raw


def _categories(raw: Mapping[Any, Any], source: Path) -> tuple[tuple[Category, ...], list[Problem]]:
    names, count = raw.get("names"), raw.get("nc")
    if names is None and type(count) is int and 0 < count <= 100_000:
        names = [str(number) for number in range(count)]
    if isinstance(names, dict):
        if sorted(names, key=str) != sorted(range(len(names)), key=str) or any(type(key) is not int for key in names):
            raise ToodError(
                f"{source}: the keys of 'names' are to be the numbers 0 to {len(names) - 1}, one for each class"
            )
        names = [names[number] for number in range(len(names))]
    if not isinstance(names, list) or not names or any(isinstance(name, dict | list) or name is None for name in names):
        raise ToodError(f"{source}: 'names' is to be the list of the classes' names")
    if count is not None and count != len(names):
        raise ToodError(f"{source}: 'nc' is {count!r}, but 'names' has {len(names)} classes")
    texts = [str(name) for name in names]
    problems = [
        Problem("duplicate_category_name", str(source), f"class name {name!r} is there twice", severity="warning")
        for name in dict.fromkeys(texts)
        if texts.count(name) > 1
    ]
    return tuple(Category(number, name) for number, name in enumerate(texts)), problems


def _base_folder(raw: Mapping[Any, Any], source: Path) -> Path:
    """The folder that the splits start from: `path` as it is or from the yaml, or the yaml's own if the data moved."""
    path = raw.get("path")
    if path in (None, "", "."):
        return source.parent
    if not isinstance(path, str) or "\0" in path:
        raise ToodError(f"{source}: 'path' is {path!r}, not the name of a folder")
    for candidate in (source.parent / path, Path(path)):
        if candidate.is_dir():
            return candidate
    return source.parent


def _entries(raw: Mapping[Any, Any], key: str, source: Path) -> list[str]:
    value = raw[key]
    entries = value if isinstance(value, list) else [value]
    if not all(isinstance(entry, str) and entry and "\0" not in entry for entry in entries):
        raise ToodError(f"{source}: {key!r} is {value!r}, not a folder, a txt list or a list of them")
    return entries


def _place(entry: str, key: str, base: Path, source: Path) -> Path:
    """The folder or list that an entry names."""
    stripped = entry
    candidates = [base / entry, source.parent / entry]
    # Roboflow writes ../train/images for a train/images beside the yaml.
    while stripped.startswith("../"):
        stripped = stripped[3:]
        candidates.append(source.parent / stripped)
    for candidate in candidates:
        if candidate.exists():
            return candidate
    raise ToodError(f"{source}: {key!r} names {entry!r}, but there is no {candidates[0]}")


def _images_of(place: Path, source: Path) -> list[tuple[Path, str]]:
    """Images of a folder or a txt list, each with its name inside the split."""
    if place.is_dir():
        return [(path, path.relative_to(place).as_posix()) for path in find_images(place).images]
    if place.suffix.lower() in IMAGE_SUFFIXES:
        return [(place, place.name)]
    try:
        lines = place.read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError) as error:
        raise ToodError(f"{place}: cannot be read as a list of images ({error})") from None
    found = []
    for line in (line.strip() for line in lines):
        if not line or "\0" in line:
            continue
        path = place.parent / line if (place.parent / line).exists() else source.parent / line
        found.append((path, _inner_name(path)))
    return found


def _inner_name(path: Path) -> str:
    """Name below the last folder called `images`, which keeps apart equal names of different folders."""
    parts = path.parts
    below = max((at for at, part in enumerate(parts[:-1]) if part == "images"), default=len(parts) - 2)
    return Path(*parts[below + 1 :]).as_posix()


def _has_labels(places: Sequence[Path]) -> bool:
    """Whether any image of the first place seems to have a label file; looks at the first few only."""
    for place in places:
        if place.is_dir():
            labels = label_path(place / "x.jpg").parent
            if labels.is_dir() and next(labels.rglob("*.txt"), None) is not None:
                return True
        elif any(label_path(path).is_file() for path, _ in _images_of(place, place)[:100]):
            return True
    return False


def _read_labels(
    path: Path, image_id: int, classes: int, problems: list[Problem]
) -> tuple[NDArray[np.float64], list[int]]:
    """Rows `class cx cy w h` [G, 5] of a label file, and the line of each (from 1)."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        return np.zeros((0, 5)), []
    except (OSError, ValueError) as error:
        problems.append(Problem("wrong_type", str(path), f"cannot be read as text ({error})", image_id))
        return np.zeros((0, 5)), []
    rows, lines = [], []
    for number, line in enumerate(text.splitlines(), start=1):
        words = line.split()
        if not words:
            continue
        parsed = _parse_line(words, classes)
        if isinstance(parsed, str):
            kind = "unknown_category" if parsed.startswith("class") else "wrong_type"
            problems.append(Problem(kind, str(path), f"line {number}: {parsed}", image_id))
            continue
        rows.append(parsed)
        lines.append(number)
    return np.array(rows, np.float64).reshape(-1, 5), lines


def _parse_line(words: Sequence[str], classes: int) -> list[float] | str:
    """`class cx cy w h` of a line, or what is wrong with it."""
    try:
        values = [float(word) for word in words]
    except ValueError:
        return f"{' '.join(words)[:60]!r} is not made of numbers"
    if len(values) != 5 and (len(values) < 7 or len(values) % 2 == 0):
        return f"has {len(values)} numbers, not `class cx cy w h` or a polygon `class x1 y1 x2 y2 x3 y3 ...`"
    label = values[0]
    if not 0 <= label < classes or label != int(label):
        return f"class {words[0]} is not among the {classes} classes, 0 to {classes - 1}"
    if len(values) == 5:
        return values
    x, y = values[1::2], values[2::2]
    if not np.isfinite(values).all():
        return [label, np.nan, np.nan, np.nan, np.nan]
    return [label, (min(x) + max(x)) / 2, (min(y) + max(y)) / 2, max(x) - min(x), max(y) - min(y)]
