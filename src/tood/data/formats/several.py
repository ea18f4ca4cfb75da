"""Folders that hold one dataset in several formats: which was taken, and how to take another."""

from __future__ import annotations

from pathlib import Path

from tood.data.formats.coco import CocoFolder, find_coco
from tood.data.formats.folder import DatasetFolder
from tood.data.formats.voc_layout import labels_in_xml
from tood.data.formats.yolo import YoloFolder, find_yolo
from tood.errors import ToodError, quoted

_NAMES = {"coco": "COCO", "yolo": "YOLO", "voc": "Pascal VOC"}


def also_held(folder: DatasetFolder) -> str | None:
    """One sentence if a folder holds labels in other formats than the one it was read in; None if it does not."""
    root = folder.root
    if not root.is_dir() or folder.format not in _NAMES:
        return None
    others: dict[str, Path] = {}
    if folder.format != "coco" and (json := _coco_of(root)) is not None:
        others["coco"] = json
    if folder.format != "yolo" and (names := _yolo_of(root)) is not None:
        others["yolo"] = names
    if folder.format != "voc" and (xmls := labels_in_xml(root)) is not None:
        others["voc"] = xmls
    if not others:
        return None
    told = " and ".join(f"{_NAMES[name]} ({path.relative_to(root).as_posix()})" for name, path in others.items())
    return f"the folder holds {told}, too: taken is {_NAMES[folder.format]}; {_choice(folder, others)}"


def _choice(folder: DatasetFolder, others: dict[str, Path]) -> str:
    """How the first of the other formats is taken instead: its file is named, or the taken labels go out of sight."""
    name, path = next(iter(others.items()))
    if path.suffix.lower() in (".json", ".yaml", ".yml"):
        return f"to take {_NAMES[name]}, name {quoted(path)}"
    taken = _top(folder)
    return (
        f"to take {_NAMES[name]}, hide what was taken: `mv {quoted(taken)} {quoted(taken.with_name('.' + taken.name))}`"
    )


def _top(folder: DatasetFolder) -> Path:
    """What in the root makes it a dataset of its format: where that is gone, the next format is found."""
    if isinstance(folder, YoloFolder):
        return folder.layout.source
    if isinstance(folder, CocoFolder):
        sources = [info.source for info in folder.splits.values() if info.source.is_file()]
        top = folder.root / sources[0].relative_to(folder.root).parts[0]
        return sources[0] if len(sources) == 1 else top
    return labels_in_xml(folder.root) or folder.root


def _coco_of(root: Path) -> Path | None:
    """The json of a COCO dataset; the folder of several."""
    try:
        found = find_coco(root)
    except (ToodError, OSError):
        return None
    sources = [info.source for info in found.splits.values() if info.source.is_file()] if found is not None else []
    return None if not sources else sources[0] if len(sources) == 1 else sources[0].parent


def _yolo_of(root: Path) -> Path | None:
    """The yaml of a YOLO dataset with labels, or the file that names its classes."""
    try:
        found = find_yolo(root)
        if found is None or not any(info.annotated for info in found.splits.values()):
            return None
    except (ToodError, OSError):
        return None
    return found.layout.source
