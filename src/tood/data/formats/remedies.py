"""What mends a folder that is no dataset: a command that can be pasted, or the name of what to give instead."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path

from tood.data.files import subfolders
from tood.data.formats.coco_content import holds_boxes
from tood.data.formats.folder import DatasetFolder
from tood.data.formats.survey import Survey
from tood.data.formats.text import read_text
from tood.data.formats.voc_layout import is_annotation
from tood.data.formats.yolo_labels import NAMES_FILES, LabelFinder, looks_like_labels
from tood.data.formats.yolo_plain import folder_splits
from tood.errors import ToodError, quoted

# The command that unpacks an archive into the folder that it lies in, by its suffix.
_ARCHIVES = {
    ".zip": "unzip {archive} -d {folder}",
    ".tar": "tar -xf {archive} -C {folder}",
    ".tgz": "tar -xf {archive} -C {folder}",
    ".gz": "gunzip -k {archive}",
    ".7z": "7z x {archive} -o{folder}",
    ".rar": "unrar x {archive} {folder}/",
}
_MOST_FOLDERS, _DEEPEST = 200, 3


def mend(found: Survey) -> str | None:
    """The command or rename that makes a dataset of the folder."""
    return (
        _json_itself(found) or _labels_named(found) or _xml_folder(found) or _archive(found) or _labels_elsewhere(found)
    )


def inner_dataset(found: Survey, find: Callable[[Path], DatasetFolder | None]) -> str | None:
    """Which folder further down is a dataset; `find` recognises one."""
    folders: list[Path] = [found.root]
    for _ in range(_DEEPEST):
        folders = [inner for folder in folders for inner in subfolders(folder)][:_MOST_FOLDERS]
        for folder in folders:
            try:
                inner = find(folder)
            except (ToodError, OSError):
                continue
            if inner is not None:
                return f"{folder} is a {inner.format.upper()} dataset: name that folder"
    return None


def _json_itself(found: Survey) -> str | None:
    path = next((path for path in found.of(".json")[:20] if holds_boxes(path)), None)
    return None if path is None else f"name the json itself: `tood data check {quoted(path)}`"


def _labels_named(found: Survey) -> str | None:
    """Where label files are to go, and what a data.yaml would be, if nothing names their classes."""
    labels = [path for path in found.of(".txt") if looks_like_labels(path) and path.name.lower() not in NAMES_FILES]
    if not labels:
        return None
    if not found.pictures:
        return f"there are {len(labels)} label files, but no pictures: export the dataset with its pictures"
    moves = _moves(found, labels)
    finder = LabelFinder()
    if not moves and not any(finder.find(path) is not None for path in found.pictures):
        return "no label file has the name of a picture: give both the same names"
    moved = f"`{' && '.join(moves)}`" if moves else ""
    if names_file(found) is not None:
        return moved or None
    classes = _most_class(labels) + 1
    splits = folder_splits(found.root)
    lines = [
        f"{'train' if name == 'all' else name}: {_relative(places, found.root)}" for name, places in splits.items()
    ]
    names = ", ".join(f"class{number}" for number in range(min(classes, 100)))
    text = "\\n".join([*lines, f"names: [{names}]"])
    write = f"printf {quoted(text + chr(92) + 'n')} > {quoted(found.root / 'data.yaml')}"
    then = f"{moved}, then " if moved else ""
    what = "class" if classes == 1 else f"{classes:,} classes"
    return f"name the {what}: {then}`{write}`, with their names for class0 and so on"


def _moves(found: Survey, labels: Sequence[Path]) -> list[str]:
    """The commands that bring every folder of labels to where those of its pictures are looked for."""
    finder = LabelFinder()
    used = {label for path in found.pictures if (label := finder.find(path)) is not None}
    pictures: dict[Path, set[str]] = {}
    for path in found.pictures:
        pictures.setdefault(path.parent, set()).add(path.stem)
    stems: dict[Path, set[str]] = {}
    for path in labels:
        if path not in used:
            stems.setdefault(path.parent, set()).add(path.stem)
    moves: list[str] = []
    targets: set[Path] = set()
    for folder, own in stems.items():
        # The nearest of the folders that have most of the pictures: train/ and val/ may have names in common.
        best = max(pictures, key=lambda place: (len(pictures[place] & own), _common(place, folder)))
        if not pictures[best] & own:
            continue
        apart = best.parent / "labels"
        if best.name.lower() == "images" and not apart.exists() and apart not in targets:
            moves.append(f"mv {quoted(folder)} {quoted(apart)}")
            targets.add(apart)
        else:
            moves.append(f"mv {quoted(folder)}/*.txt {quoted(best)}/")
    return moves


def _common(one: Path, other: Path) -> int:
    return len(os.path.commonpath([one, other]))


def names_file(found: Survey) -> Path | None:
    """The file that names the classes for label files."""
    return next((path for path in found.others if path.name.lower() in NAMES_FILES or path.suffix == ".names"), None)


def _relative(places: Sequence[Path], root: Path) -> str:
    texts = [path.relative_to(root).as_posix() for path in places]
    return texts[0] if len(texts) == 1 else f"[{', '.join(texts)}]"


def _most_class(labels: Sequence[Path]) -> int:
    most = 0
    for path in labels:
        try:
            words = [line.split()[0] for line in read_text(path).replace(",", " ").splitlines() if line.split()]
            most = max([most, *(int(float(word)) for word in words)])
        except (OSError, ValueError, OverflowError):
            continue
    return most


def _xml_folder(found: Survey) -> str | None:
    xmls = [path for path in found.of(".xml") if is_annotation(path)]
    if not xmls:
        return None
    folder, target = xmls[0].parent, found.root / "Annotations"
    if folder == found.root:
        moved = f"mkdir {quoted(target)} && mv {quoted(folder)}/*.xml {quoted(target)}/"
    else:
        moved = f"mv {quoted(folder)} {quoted(target)}"
    parents = {path.parent for path in found.pictures}
    if len(parents) == 1 and found.root not in parents and folder not in parents:
        (pictures,) = parents
        if pictures.name.lower() not in ("jpegimages", "images"):
            moved += f" && mv {quoted(pictures)} {quoted(found.root / 'JPEGImages')}"
    return f"`{moved}`"


def _archive(found: Survey) -> str | None:
    commands = [command for path in found.of(*_ARCHIVES) if (command := unpacking(path)) is not None]
    return f"unpack the archive: `{commands[0]}`" if commands else None


def unpacking(path: Path) -> str | None:
    """The command that unpacks an archive beside itself; None if it is none."""
    suffix = ".tgz" if path.name.lower().endswith((".tar.gz", ".tar.bz2", ".tar.xz")) else path.suffix.lower()
    pattern = _ARCHIVES.get(suffix)
    return None if pattern is None else pattern.format(archive=quoted(path), folder=quoted(path.parent))


def _labels_elsewhere(found: Survey) -> str | None:
    tables = found.of(".csv", ".parquet", ".tfrecord", ".jsonl")
    if tables:
        return f"{tables[0].name} is in no format that is read: export the dataset as COCO, YOLO or Pascal VOC"
    return None
