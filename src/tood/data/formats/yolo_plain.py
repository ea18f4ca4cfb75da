"""YOLO datasets without a yaml: darknet's, and what labelImg, Label Studio, CVAT and Roboflow write beside one.

The classes stand in a text file, one a line (`classes.txt`, `obj.names`, `_darknet.labels`). The splits are, whichever
is there: what `obj.data` names; the lists `train.txt`, `valid.txt`, `test.txt`; folders of these names, or CVAT's
`obj_train_data`; else all pictures are one split `all`.
"""

from __future__ import annotations

import os
import re
from itertools import islice
from pathlib import Path

from tood.data.files import IMAGE_SUFFIXES, any_images, subfolders
from tood.data.formats.folder import canonical
from tood.data.formats.text import read_lines
from tood.data.formats.yolo_labels import NAMES_FILES, LabelFinder, looks_like_labels
from tood.data.formats.yolo_paths import plain_path
from tood.data.formats.yolo_yaml import SPLITS, YoloLayout, categories_of, find_places, names_in
from tood.errors import ToodError

_NAMES_FILES = (*NAMES_FILES, "obj.names", "_darknet.labels")
_LESS_USUAL = ("labels.txt", "names.txt", "class_names.txt")
_CVAT_FOLDER = re.compile(r"obj_(\w+)_data")
# Of so many pictures one is to have labels, if a folder is to be a dataset.
_PROBED = 1000


def find_plain_layout(root: Path) -> YoloLayout | None:
    """What a folder without a yaml says, or its only sub-folder; None if it has no names of classes, or no labels.

    Raises:
        ToodError: if the names cannot be used, or two files of names differ.
    """
    inner = subfolders(root)
    # A zip that was unpacked into a folder of its own.
    if len(inner) == 1 and not _is_part(inner[0].name) and (layout := find_plain_layout(inner[0])) is not None:
        return layout
    names_file, names = _names(root)
    if names_file is None:
        return None
    settings = _darknet_settings(root)
    listed = _listed_splits(root, settings)
    if listed:
        named = {split: [text] for split, (_, text) in listed.items()}
        sources = [path for path, _ in listed.values()]
        bases = list(dict.fromkeys((root, *(path.parent for path in sources))))
        places, missing, moved = find_places(named, bases, sources[0])
    else:
        places, missing, moved = folder_splits(root), {}, []
        if not any(_has_labels(place) for found in places.values() for place in found):
            return None
    categories, problems = categories_of(names, names_file)
    shown = ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")
    note = f"there is no data.yaml: the {len(names)} classes ({shown}) are those of {names_file}"
    return YoloLayout(names_file, categories, places, missing, problems=tuple(problems), notes=(note, *moved))


def _names(root: Path) -> tuple[Path | None, list[str]]:
    """The file that names the classes, and the names."""
    folders = [root, root / "data", root / "labels", *subfolders(root)]
    folders += [
        inner
        for folder in subfolders(root)
        for inner in subfolders(folder)
        # labelImg writes the names into whatever folder it saves labels to, a split's among them.
        if inner.name.lower() == "labels" or (folder.name.lower() == "labels" and canonical(inner.name) in SPLITS)
    ]
    found: dict[Path, list[str]] = {}
    others: dict[Path, None] = {}
    for folder in dict.fromkeys(folders):
        if not folder.is_dir():
            continue
        for path in _may_name_classes(folder):
            if path.name.lower() not in _LESS_USUAL:
                found[path] = names_in(path)
            elif not looks_like_labels(path):
                others.setdefault(path, None)
    if not found:
        found = {path: names_in(path) for path in others}
    if not found:
        return None, []
    (first, names), *more = found.items()
    for other, differing in more:
        if differing != names:
            raise ToodError(f"{root}: {first} and {other} name other classes: remove the one that is not meant")
    return first, names


def _may_name_classes(folder: Path) -> list[Path]:
    """The files of a folder that are called as one of the names of classes is, sorted."""
    names = os.listdir(folder)  # noqa: PTH208  (of a million pictures the names alone)
    told = (*_NAMES_FILES, *_LESS_USUAL)
    chosen = [name for name in names if name.lower() in told or name.lower().endswith(".names")]
    paths = (folder / name for name in sorted(chosen) if not name.startswith("._"))
    return [path for path in paths if (path.name.lower() in told or path.suffix) and path.is_file()]


def _darknet_settings(root: Path) -> tuple[Path, dict[str, str]] | None:
    """The keys of darknet's `obj.data`, where there is one such file."""
    files = [path for folder in (root, root / "data") if folder.is_dir() for path in sorted(folder.glob("*.data"))]
    if len(files) != 1:
        return None
    try:
        pairs = [line.split("=", 1) for line in read_lines(files[0]) if "=" in line and not line.startswith("#")]
    except (OSError, ValueError):
        return None
    return files[0], {key.strip(): value.strip() for key, value in pairs}


def _listed_splits(root: Path, settings: tuple[Path, dict[str, str]] | None) -> dict[str, tuple[Path, str]]:
    """For each split that a list stands for: the file that names the list, and the list as named."""
    if settings is not None:
        source, values = settings
        # Without a test set people name the training list twice over.
        named = {canonical(key): value for key, value in values.items() if canonical(key) in SPLITS and value}
        if named:
            return {split: (source, value) for split, value in named.items()}
    for folder in (root, root / "data"):
        lists = sorted(folder.glob("*.txt")) if folder.is_dir() else []
        found = {canonical(path.stem): (path, path.name) for path in lists if canonical(path.stem) in SPLITS}
        found = {split: told for split, told in found.items() if _lists_images(told[0])}
        if found:
            return found
    return {}


def _lists_images(path: Path) -> bool:
    try:
        first = next(iter(read_lines(path)), "")
    except (OSError, ValueError):
        return False
    return Path(plain_path(first)).suffix.lower() in IMAGE_SUFFIXES


def folder_splits(root: Path) -> dict[str, tuple[Path, ...]]:
    """Folders of a split's name in `root` or its `images`, else all as one split."""
    tops = [folder for folder in subfolders(root) if folder.name.lower() == "images"]
    for top in (root, *tops):
        found: dict[str, tuple[Path, ...]] = {}
        for folder in subfolders(top):
            cvat = _CVAT_FOLDER.fullmatch(folder.name)
            split = canonical(cvat[1] if cvat else folder.name)
            if (split in SPLITS or cvat) and next(any_images(folder), None) is not None:
                found[split] = (*found.get(split, ()), folder)
        if found:
            return {split: found[split] for split in sorted(found, key=_order)}
    with_images = [top for top in tops if next(any_images(top), None) is not None]
    return {"all": tuple(with_images) or (root,)}


def _is_part(name: str) -> bool:
    """Whether a folder of this name is rather a part of a dataset than one."""
    return canonical(name) in (*SPLITS, "images", "labels", "data") or _CVAT_FOLDER.fullmatch(name) is not None


def _order(split: str) -> tuple[int, str]:
    return (SPLITS.index(split) if split in SPLITS else len(SPLITS), split)


def _has_labels(place: Path) -> bool:
    finder = LabelFinder()
    return any(finder.find(path) is not None for path in islice(any_images(place), _PROBED))
