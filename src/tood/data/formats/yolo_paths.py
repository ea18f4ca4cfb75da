"""Where the paths in a YOLO yaml or list lead to, also on another machine than they were written on."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tood.data.files import IMAGE_SUFFIXES, any_images, find_images
from tood.data.formats.text import other_encoding, read_lines
from tood.errors import ToodError

_SUFFIXES = "|".join(re.escape(suffix) for suffix in sorted(IMAGE_SUFFIXES))
_FLAGGED = re.compile(rf"(?P<image>.+(?:{_SUFFIXES}))\s+-?\d+", re.IGNORECASE)
KERAS_LINE = re.compile(rf".+(?:{_SUFFIXES})(?:\s+-?\d+(?:\.\d+)?(?:,-?\d+(?:\.\d+)?){{4}})+", re.IGNORECASE)
"""A line of a list with boxes: `a.jpg x1,y1,x2,y2,class x1,y1,x2,y2,class ...`."""

_DRIVE = re.compile(r"^[A-Za-z]:(?=/)")


@dataclass
class PathFinder:
    """Finds what paths of a dataset lead to.

    A path counts from each of `bases`, the first one first, with either kind of slash. One that leads nowhere so is
    sought by its end (`C:/Users/me/data/images/a.jpg` as `images/a.jpg` in a base): what the first one loses at its
    front, others of the same front lose too, so no two become one; `moved` are the paths that were found so.
    """

    bases: Sequence[Path]
    moved: list[str] = field(default_factory=list)
    _fronts: dict[tuple[str, ...], Path] = field(default_factory=dict)
    _listings: dict[Path, dict[str, list[str]]] = field(default_factory=dict)

    def find(self, text: str) -> Path | None:
        """The file or folder, None if there is none."""
        return self.as_written(text) or self.by_end(text)

    def as_written(self, text: str) -> Path | None:
        """As `find`, but only where the whole path leads."""
        plain = plain_path(text)
        candidates = [base / plain for base in self.bases]
        found = next((path for path in candidates if _exists(path)), None)
        if found is None and not Path(plain).is_absolute() and not _DRIVE.match(plain):
            found = next((path for base in self.bases if (path := self._in_any_case(base, plain)) is not None), None)
        return found

    def by_end(self, text: str) -> Path | None:
        """As `find`, but without the path's front."""
        parts = tuple(part for part in plain_path(text).split("/") if part not in ("", "."))
        known = [at for at in range(len(parts) - 1, 0, -1) if parts[:at] in self._fronts]
        for at in known:
            path = self._fronts[parts[:at]].joinpath(*parts[at:])
            if _exists(path):
                self.moved.append(text)
                return path
        for at in range(1, len(parts)):
            for base in self.bases:
                path = base.joinpath(*parts[at:])
                if ".." not in parts[at:] and _exists(path):
                    self._fronts.setdefault(parts[:at], base)
                    self.moved.append(text)
                    return path
        return None

    def _in_any_case(self, base: Path, plain: str) -> Path | None:
        """The one path in `base` that differs from `plain` in the case of letters alone."""
        path = base
        for part in plain.split("/"):
            if part in ("", "."):
                continue
            names = [part] if part == ".." else self._names(path).get(part.lower(), [])
            if len(names) != 1 and part not in names:
                return None
            path = path / (part if part in names else names[0])
        return path if _exists(path) else None

    def _names(self, folder: Path) -> dict[str, list[str]]:
        """What a folder holds, by the names in small letters."""
        if folder not in self._listings:
            try:
                names = sorted(os.listdir(folder))  # noqa: PTH208  (names alone are wanted)
            except (OSError, ValueError):
                names = []
            found = self._listings.setdefault(folder, {})
            for name in names:
                found.setdefault(name.lower(), []).append(name)
        return self._listings[folder]


def plain_path(text: str) -> str:
    """A path with slashes, without quotes around it or `./` at its front."""
    plain = text.strip().strip("\"'").replace("\\", "/")
    while plain.startswith("./"):
        plain = plain[2:].lstrip("/")
    return os.path.expanduser(plain) if plain.startswith("~/") else plain or "."  # noqa: PTH111  (stays a text)


@dataclass(frozen=True)
class ListRemarks:
    """What is to be told about lists and folders of images.

    Attributes:
        moved: lines of lists that lead nowhere as written and were found by their end.
        flagged: lines of lists with a number.
        passed_over: files of folders that are passed over, by the reason.
    """

    moved: list[str] = field(default_factory=list)
    flagged: list[str] = field(default_factory=list)
    passed_over: dict[str, tuple[Path, ...]] = field(default_factory=dict)


def images_of(place: Path, source: Path, remarks: ListRemarks | None = None) -> Iterator[tuple[Path, str]]:
    """Images of a folder or a txt list, each with its name inside the split.

    Args:
        place: the folder or list.
        source: what names the place.
        remarks: takes what is to be told about the lines, or the folder.
    """
    if place.is_dir():
        found = find_images(place)
        if remarks is not None:
            for reason, paths in found.passed_over.items():
                remarks.passed_over[reason] = (*remarks.passed_over.get(reason, ()), *paths)
        front = len(place.parts)
        yield from ((path, "/".join(path.parts[front:])) for path in found.images)
    elif place.suffix.lower() in IMAGE_SUFFIXES:
        yield place, place.name
    else:
        remarks = remarks or ListRemarks()
        finder = PathFinder((place.parent, source.parent), remarks.moved)
        for line in listed_lines(place):
            path = finder.find(line)
            if path is None and line.startswith("#"):
                continue  # a picture that somebody took out
            if path is None and (flagged := _FLAGGED.fullmatch(line)) is not None:
                remarks.flagged.append(line)
                line = flagged["image"]
                path = finder.find(line)
            path = path or source.parent / plain_path(line)
            yield path, _inner_name(path)


def listed_lines(place: Path) -> list[str]:
    """The lines of a list of images, without comments.

    Raises:
        ToodError: if it cannot be read as text, or has boxes in it.
    """
    try:
        lines = [line for line in read_lines(place) if "\0" not in line]
    except UnicodeDecodeError:
        raise ToodError(f"{place}: {other_encoding(place)}") from None
    except (OSError, ValueError) as error:
        raise ToodError(f"{place}: cannot be read as a list of images ({error})") from None
    boxes = next((line for line in lines if KERAS_LINE.fullmatch(line)), None)
    if boxes is not None:
        raise ToodError(
            f"{place}: is a list of Keras-YOLO with the boxes in it ({boxes[:60]!r}), which is not read: export the "
            "dataset as COCO, YOLO or Pascal VOC"
        )
    return [line for line in lines if not line.startswith("#") or Path(line).suffix.lower() in IMAGE_SUFFIXES]


def holds_images(place: Path) -> bool:
    """Whether a folder has a picture, or a list a line."""
    if place.is_dir():
        return next(any_images(place), None) is not None
    return place.suffix.lower() in IMAGE_SUFFIXES or bool(listed_lines(place))


def _inner_name(path: Path) -> str:
    """Name below the last folder called `images`, which keeps apart equal names of different folders."""
    parts = path.parts
    below = max((at for at, part in enumerate(parts[:-1]) if part.lower() == "images"), default=len(parts) - 2)
    return Path(*parts[below + 1 :]).as_posix()


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except (OSError, ValueError):
        return False
