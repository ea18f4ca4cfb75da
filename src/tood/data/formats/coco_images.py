"""Where the image files are that a COCO json names, also where its folders are those of another machine."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from unicodedata import normalize
from urllib.parse import unquote

from tood.data.columns import PathColumn
from tood.data.files import IMAGE_SUFFIXES, find_images
from tood.data.formats.folder import canonical

BESIDE_IMAGES = ("_annotations.coco.json", "annotations.json", "labels.json", "instances.json")
_PROBED_IMAGES = 20
# What a path drops that is made of a text: parts that are empty or a dot.
_UNTIDY = re.compile(r"(^|/)\.?(/|$)")
_IMAGE_FOLDERS = ("images", "data", "JPEGImages", "img", "imgs")


@dataclass(frozen=True)
class LocatedImages:
    """The files of a json's images, in its order.

    Attributes:
        paths: where each is, or would be.
        names: of each inside the folder of the images, with `/` between folders.
        missing: by index, a sentence for each that is not there or cannot be told from others.
        moved: a sentence if some were found elsewhere than the json says; else empty.
    """

    paths: PathColumn
    names: Sequence[str]
    missing: Mapping[int, str] = field(default_factory=dict)
    moved: str = ""


def locate_images(source: Path, home: Path, file_names: Sequence[str], required: bool) -> LocatedImages:
    """Find the image files that a json names.

    A file that is not where its name says is looked for below `home` by its base name (composed or decomposed letters,
    whatever case, with the suffix that the name may lack): it is taken if it is the only one, or the only one whose
    last folders are the named ones, and if it is no other image's.

    Args:
        source: the json.
        home: the folder of the dataset.
        file_names: as the json has them.
        required: whether to look at all; else each is where its name says.
    """
    folder = image_folder(source, home, file_names)
    names = [local_name(name) for name in file_names]
    column = PathColumn.of(_joined(folder, name) for name in names)
    absent = _absent(column) if required else []
    if not absent:
        return LocatedImages(column, names)
    by_base = _by_base(home)
    paths = list(column)
    owners = {path: names[at] for at, path in enumerate(paths)}
    for at in absent:
        owners.pop(paths[at], None)
    missing: dict[int, str] = {}
    moved: list[int] = []
    for at in absent:
        told = f"image file {names[at]!r} is not in {paths[at].parent}"
        found = _narrowed(_candidates(names[at], by_base), names[at])
        if len(found) > 1:
            some = ", ".join(map(str, found[:3]))
            missing[at] = f"{told}, and {len(found)} others are called so ({some}): which is meant cannot be told"
        elif not found:
            missing[at] = told
        elif owners.setdefault(found[0], names[at]) != names[at]:
            missing[at] = f"{told}, and {found[0]} is that of {owners[found[0]]!r}"
        else:
            paths[at] = found[0]
            moved.append(at)
    if not moved:
        return LocatedImages(column, names, missing)
    first = moved[0]
    sentence = (
        f"{len(moved)} of {len(paths)} image files are not where the file says, and were found by their base names: "
        f"{names[first]!r} at {paths[first]}{' and so on' if len(moved) > 1 else ''}"
    )
    for at in moved:
        inside = folder if folder in paths[at].parents else home
        names[at] = paths[at].relative_to(inside).as_posix()
    return LocatedImages(PathColumn.of(map(str, paths)), names, missing, sentence)


def image_folder(source: Path, home: Path, file_names: Sequence[str]) -> Path:
    """The folder that the file names of a json start from: the one that has most of the first few."""
    stem = source.parent.name if source.name in BESIDE_IMAGES else source.stem
    for prefix in ("instances_", "image_info_", "annotations_", "instances-", "person_keypoints_"):
        stem = stem.removeprefix(prefix)
    plain = canonical(stem)
    names = dict.fromkeys((stem, plain, *(("valid", "validation") if plain == "val" else ())))
    if plain == "test-dev":  # COCO's test-dev is part of its test2017 folder
        names |= dict.fromkeys((stem.replace("test-dev", "test"), "test"))
    split_folders = [home / parent / name for parent in ("", "images") for name in names]
    usual = [home / name for name in _IMAGE_FOLDERS]
    places = [*split_folders, *usual, source.parent / "images", source.parent, home]
    candidates = [place for place in dict.fromkeys(places) if place.is_dir()]
    probed = file_names[:: max(1, len(file_names) // _PROBED_IMAGES)][:_PROBED_IMAGES]

    def hits(place: Path) -> int:
        return sum(_exists(place / local_name(name)) for name in probed)

    best: Path = max(candidates, key=hits)
    return best


def local_name(file_name: str) -> str:
    """A file name, perhaps written on Windows, with `/` between its folders."""
    return file_name.replace("\\", "/")


def _joined(folder: Path, name: str) -> str:
    """`str(folder / name)`, sooner."""
    plain = os.sep == "/" and name[:1] not in ("/", "") and _UNTIDY.search(name) is None
    return f"{folder}/{name}" if plain and str(folder) not in (".", "/") else str(folder / name)


def _absent(paths: PathColumn) -> list[int]:
    """Which of the files are not there; the folders are listed once, no file is opened."""
    found: list[int] = []
    for folder, own in paths.by_folder():
        there = _listing(folder)
        bases = zip(own.tolist(), paths.bases.take(own), strict=True)
        found.extend(at for at, base in bases if base not in there)
    return sorted(found)


def _by_base(home: Path) -> dict[str, list[Path]]:
    """The pictures below a folder by their base name, with and without its suffix."""
    found: dict[str, list[Path]] = {}
    for path in find_images(home).images:
        for key in (_spelled(path.name), _spelled(path.stem)):
            found.setdefault(key, []).append(path)
    return found


def _candidates(name: str, by_base: Mapping[str, list[Path]]) -> list[Path]:
    """The pictures that a name's last part may mean: as it is, as the end of a URL, or quoted as one."""
    before, _, query = name.partition("?")
    values = (unquote(pair.partition("=")[2]) for pair in query.split("&"))
    for wanted in dict.fromkeys((name, before, unquote(before), *values)):
        key = _spelled(wanted.rpartition("/")[2])
        found = by_base.get(key, [])
        # A name with a suffix means rather no picture of that stem with another one.
        if Path(key).suffix in IMAGE_SUFFIXES:
            found = [path for path in found if _spelled(path.name) == key]
        if found:
            return found
    # Somebody has saved it anew in another kind of file, if there is no other of that stem.
    key = _spelled(unquote(before).rpartition("/")[2])
    return by_base.get(_spelled(Path(key).stem), []) if Path(key).suffix in IMAGE_SUFFIXES else []


def _narrowed(found: Sequence[Path], name: str) -> list[Path]:
    """Of several the one of exactly this spelling, or the one with most of the named folders before it."""
    if len(found) < 2:
        return list(found)
    exact = [path for path in found if normalize("NFC", path.name) == normalize("NFC", name.rpartition("/")[2])]
    found = exact or found
    folders = [_spelled(part) for part in name.split("/")[:-1]]

    def agreeing(path: Path) -> int:
        own = [_spelled(part) for part in path.parts[:-1]]
        count = 0
        while count < min(len(own), len(folders)) and own[-1 - count] == folders[-1 - count]:
            count += 1
        return count

    most = max(map(agreeing, found))
    return [path for path in found if agreeing(path) == most]


def _spelled(name: str) -> str:
    return normalize("NFC", name).casefold()


def _listing(folder: Path) -> frozenset[str]:
    try:
        return frozenset(os.listdir(folder))  # noqa: PTH208  (names alone are wanted)
    except (OSError, ValueError):
        return frozenset()


def _exists(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False
