"""Pascal VOC folders: `Annotations/*.xml`, `JPEGImages/`, `ImageSets/Main/<split>.txt`.

Conventions:
- VOC counts pixels from 1 and its corners are inside the box, so `xmin ymin xmax ymax` become x1 = xmin - 1,
  y1 = ymin - 1, x2 = xmax, y2 = ymax. A box whose xmax <= xmin or ymax <= ymin is taken as a click without a drag: it
  has no area and is dropped.
- `difficult` objects become crowds: as in VOC's own protocol they count neither as right nor as wrong, and never train.
- The classes are the names of all splits together, in alphabetical order, ids from 1; image ids number all images of
  all splits together, by name. So splits agree with one another.
- Without `ImageSets` every annotated image is in one split `all`; folders of xml files beside their images (`train/`,
  `valid/`) work too.
"""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tood.data.dataset import Category, DetectionDataset, ImageRecord, Problem
from tood.data.files import IMAGE_SUFFIXES
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

_USUAL = ("train", "val", "trainval", "test")
_CORNERS = ("xmin", "ymin", "xmax", "ymax")
_LARGEST_SIDE = 1 << 24


@dataclass(frozen=True)
class _Annotation:
    """One xml: size (width, height) or None, the file name it tells, and its objects; `boxes` [G, 4] as in the file."""

    size: tuple[int, int] | None
    file_name: str
    names: tuple[str, ...]
    boxes: NDArray[np.float64]
    difficult: NDArray[np.bool_]
    problems: tuple[Problem, ...]


@dataclass(frozen=True)
class VocFolder:
    """A VOC dataset: for each split the names of its images, and for each name the place of its xml and image."""

    root: Path
    splits: Mapping[str, SplitInfo]
    names: Mapping[str, tuple[str, ...]]
    xml_files: Mapping[str, Path]
    image_folders: tuple[Path, ...]
    format: str = "voc"

    @cached_property
    def _annotations(self) -> dict[str, _Annotation]:
        """Every xml that any split names."""
        wanted = sorted({name for names in self.names.values() for name in names} & self.xml_files.keys())
        return {name: _read_xml(self.xml_files[name]) for name in wanted}

    @cached_property
    def _numbers(self) -> dict[str, int]:
        wanted = sorted({name for names in self.names.values() for name in names})
        return {name: number for number, name in enumerate(wanted, start=1)}

    @cached_property
    def _images(self) -> dict[str, Path]:
        """Image file of every name (without its suffix)."""
        found: dict[str, Path] = {}
        for folder in self.image_folders:
            for path in sorted(folder.iterdir()):
                if path.suffix.lower() in IMAGE_SUFFIXES:
                    found.setdefault(_key(folder, path.stem, self.image_folders), path)
        return found

    def read(self, split: str, images_required: bool) -> DetectionDataset:
        """See `DatasetFolder.read`; sizes come from the xml files, or from the images where those have none."""
        info = self.splits[split]
        class_names = sorted({name for annotation in self._annotations.values() for name in annotation.names})
        labels = {name: label for label, name in enumerate(class_names)}
        problems: list[Problem] = []
        images: list[ImageRecord] = []
        next_box = 1
        repeated = _repeated(self.names[split])
        problems.extend(
            Problem("duplicate_file", str(info.source), f"names {name!r} twice: taken once", severity="warning")
            for name in repeated
        )
        for name in dict.fromkeys(self.names[split]):
            number = self._numbers[name]
            annotation = self._annotations.get(name)
            if annotation is None and info.annotated:
                message = f"names {name!r}, but there is no annotation {name}.xml"
                problems.append(Problem("annotation_missing", str(info.source), message, number))
                continue
            annotation = annotation or _Annotation(None, "", (), np.zeros((0, 4)), np.zeros(0, np.bool_), ())
            problems.extend(_with_image(problem, number) for problem in annotation.problems)
            path = self._image_of(name, annotation)
            if path is None:
                if images_required:
                    message = f"there is no image file of this name in {', '.join(map(str, self.image_folders))}"
                    problems.append(Problem("image_missing", name, message, number))
                path = self.image_folders[0] / (annotation.file_name or f"{name}.jpg")
            try:
                size = annotation.size or image_size(path)
            except ToodError as error:
                problems.append(Problem("image_unreadable", str(path), str(error), number))
                continue
            xml = str(self.xml_files.get(name, path))
            record = _record(number, path, size, annotation, labels, next_box, xml, problems)
            next_box += len(record.boxes)
            images.append(record)
        categories = tuple(Category(number, name) for number, name in enumerate(class_names, start=1))
        xml_files = tuple(self.xml_files[name] for name in self.names[split] if name in self.xml_files)
        return DetectionDataset(
            self.root, split, "voc", categories, tuple(images), tuple(problems), info.annotated, info.source, xml_files
        )

    def _image_of(self, name: str, annotation: _Annotation) -> Path | None:
        path = self._images.get(name)
        if path is None and annotation.file_name:
            told = Path(annotation.file_name)
            path = self._images.get(told.stem)
        return path


def find_voc(root: Path) -> VocFolder | None:
    """The VOC dataset in a folder, or in its only sub-folder that has one; None if there is none."""
    if not root.is_dir():
        return None
    if (root / "Annotations").is_dir():
        return _standard(root, root)
    inner = [path for path in sorted(root.iterdir()) if (path / "Annotations").is_dir()]
    if len(inner) > 1:
        found = ", ".join(path.name for path in inner)
        raise ToodError(f"{root}: holds several VOC datasets ({found}): name one of them")
    if inner:
        return _standard(root, inner[0])
    return _beside_images(root)


def _standard(root: Path, home: Path) -> VocFolder | None:
    xml_files = {path.stem: path for path in sorted((home / "Annotations").glob("*.xml"))}
    lists = home / "ImageSets" / "Main"
    names: dict[str, tuple[str, ...]] = {}
    sources: dict[str, Path] = {}
    for path in sorted(lists.glob("*.txt")) if lists.is_dir() else ():
        # VOC keeps one list a class, too: aeroplane_train.txt.
        if path.stem not in _USUAL and any(path.stem.endswith(f"_{split}") for split in _USUAL):
            continue
        names[canonical(path.stem)], sources[canonical(path.stem)] = _read_list(path), path
    if not names:
        if not xml_files:
            return None
        names, sources = {"all": tuple(xml_files)}, {"all": home / "Annotations"}
    order = sorted(names, key=lambda name: (_USUAL.index(name) if name in _USUAL else len(_USUAL), name))
    splits = {
        name: SplitInfo(name, sources[name], not names[name] or any(n in xml_files for n in names[name]))
        for name in order
    }
    folders = tuple(path for path in (home / "JPEGImages", home / "images", home / "Images") if path.is_dir())
    return VocFolder(root, splits, names, xml_files, folders or (home / "JPEGImages",) if folders else (home,))


def _beside_images(root: Path) -> VocFolder | None:
    """Every split a folder with xml files beside its images."""
    folders = [path for path in sorted(root.iterdir()) if path.is_dir() and next(path.glob("*.xml"), None)]
    folders = [path for path in folders if canonical(path.name) in _USUAL]
    if not folders:
        return None
    xml_files = {_key(folder, path.stem, folders): path for folder in folders for path in sorted(folder.glob("*.xml"))}
    names = {
        canonical(folder.name): tuple(_key(folder, path.stem, folders) for path in sorted(folder.glob("*.xml")))
        for folder in folders
    }
    splits = {canonical(folder.name): SplitInfo(canonical(folder.name), folder) for folder in folders}
    return VocFolder(root, splits, names, xml_files, tuple(folders))


def _key(folder: Path, stem: str, folders: Iterable[Path]) -> str:
    """Name of an image: where every split has its folder, equal names in two of them are two images."""
    return (
        stem
        if folder.name in ("JPEGImages", "images", "Images") or len(tuple(folders)) == 1
        else f"{folder.name}/{stem}"
    )


def _read_list(path: Path) -> tuple[str, ...]:
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, ValueError) as error:
        raise ToodError(f"{path}: cannot be read as a list of image names ({error})") from None
    return tuple(
        line.split()[0] if line.split()[1:] in (["1"], ["-1"], ["0"]) else line.strip()
        for line in lines
        if line.strip()
    )


def _repeated(names: Iterable[str]) -> list[str]:
    seen: set[str] = set()
    twice: dict[str, None] = {}
    for name in names:
        if name in seen:
            twice[name] = None
        seen.add(name)
    return list(twice)


def _with_image(problem: Problem, image_id: int) -> Problem:
    return Problem(problem.kind, problem.file, problem.message, image_id, None, problem.severity)


def _read_xml(path: Path) -> _Annotation:
    """One annotation file; what is wrong in it becomes an error in `problems`."""
    file = str(path)

    def broken(message: str) -> _Annotation:
        return _Annotation(
            None, "", (), np.zeros((0, 4)), np.zeros(0, np.bool_), (Problem("broken_file", file, message),)
        )

    try:
        data = path.read_bytes()
    except OSError as error:
        return broken(f"cannot be read ({error.strerror})")
    # A document type may define entities that expand to gigabytes or read other files; UTF-16 (zero bytes) hides one.
    if b"<!DOCTYPE" in data or b"<!ENTITY" in data or b"\0" in data:
        return broken(
            "has a document type (DOCTYPE) or is not plain 8-bit xml: refused, as no VOC annotation needs one"
        )
    try:
        tree = ElementTree.fromstring(data)
    except ElementTree.ParseError as error:
        return broken(f"broken xml: {error}")
    except (ValueError, LookupError, RecursionError) as error:
        return broken(f"cannot be read as xml ({error})")
    problems: list[Problem] = []
    names, boxes, difficult = [], [], []
    for number, item in enumerate(tree.findall("object"), start=1):
        name = (item.findtext("name") or "").strip()
        texts = [item.findtext(f"bndbox/{corner}") for corner in _CORNERS]
        try:
            corners = [float(text or "") for text in texts]
        except ValueError:
            told = dict(zip(_CORNERS, texts, strict=True))
            problems.append(Problem("wrong_type", file, f"object {number} has no box of four numbers: {told}"))
            continue
        if not name:
            problems.append(Problem("wrong_type", file, f"object {number} has no name"))
            continue
        names.append(name)
        boxes.append(corners)
        difficult.append((item.findtext("difficult") or "0").strip() not in ("0", "", "Unspecified", "false", "False"))
    return _Annotation(
        _read_size(tree),
        (tree.findtext("filename") or "").strip().replace("\\", "/"),
        tuple(names),
        np.array(boxes, np.float64).reshape(-1, 4),
        np.array(difficult, np.bool_).reshape(-1),
        tuple(problems),
    )


def _read_size(tree: ElementTree.Element) -> tuple[int, int] | None:
    """(width, height) that the file tells; None where it tells none, or nought as some tools do."""
    try:
        width, height = (int(float(tree.findtext(f"size/{side}") or 0)) for side in ("width", "height"))
    except (ValueError, OverflowError):
        return None
    return (width, height) if 1 <= width <= _LARGEST_SIDE and 1 <= height <= _LARGEST_SIDE else None


def _record(
    number: int,
    path: Path,
    size: tuple[int, int],
    annotation: _Annotation,
    labels: Mapping[str, int],
    first_id: int,
    file: str,
    problems: list[Problem],
) -> ImageRecord:
    """The record of one image; `first_id` is the annotation id of its first box."""
    given = annotation.boxes
    clicks = (given[:, 2] <= given[:, 0]) | (given[:, 3] <= given[:, 1])
    corners = given - np.array([1.0, 1.0, 0.0, 0.0])  # counted from 1, corners inside -> x1 y1 x2 y2
    clean = clean_boxes(np.where(clicks[:, None], given, corners), np.full((len(given), 2), size, np.float64))
    kept = clean.kept & ~clicks
    for row in np.flatnonzero(~kept).tolist():
        shown = given[row] if clicks[row] else corners[row]
        message = drop_reason(shown, bool(clean.outside[row]), size)
        problems.append(Problem("box_dropped", file, f"{annotation.names[row]} {message}", number, severity="warning"))
    for row in np.flatnonzero(clean.clipped & kept).tolist():
        message = clip_reason(corners[row], size)
        problems.append(Problem("box_clipped", file, f"{annotation.names[row]} {message}", number, severity="warning"))
    boxes = clean.boxes[kept]
    return ImageRecord(
        id=number,
        path=path,
        width=size[0],
        height=size[1],
        boxes=boxes,
        labels=np.array([labels[name] for name in annotation.names], np.int64).reshape(-1)[kept],
        crowd=annotation.difficult[kept],
        areas=box_areas(boxes),
        annotation_ids=np.arange(first_id, first_id + len(boxes), dtype=np.int64),
        file_name=path.name,
    )
