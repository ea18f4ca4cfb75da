"""Which files of a folder are its pictures, and why the others are passed over."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

IMAGE_SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".png", ".bmp", ".webp", ".tif", ".tiff", ".gif", ".ppm", ".pgm", ".pbm"}
)
"""By these a folder's pictures are told from its other files; a file that is named itself may be called anything."""

# Pictures, for a person, that no decoder here reads.
_UNREAD_SUFFIXES = frozenset(
    {".heic", ".heif", ".hif", ".avif", ".jxl", ".dng", ".cr2", ".cr3", ".nef", ".arw", ".orf", ".rw2", ".raf", ".raw"}
    | {".psd", ".xcf", ".svg", ".exr", ".hdr", ".jp2", ".j2k", ".tga", ".ico", ".dcm"}
)

# Folders that a system or a program keeps for itself, with previews or leftovers of pictures in them.
_SYSTEM_FOLDERS = frozenset(
    {"__macosx", "appledouble", "network trash folder", "temporary items", "ipod photo cache"}  # macOS
    | {"$recycle.bin", "recycler", "recycled", "system volume information", "found.000"}  # Windows
    | {"@eadir", "#recycle", "#snapshot", "@tmp", "@sharebin", "@sharesnap"}  # Synology
    | {"@recycle", "@recently-snapshot", "@__thumb", "@upload_cache", "_thumb", "_thumbs"}  # QNAP and web galleries
    | {"lost+found", "~snapshot", "thumbnails", "_thumbnails", "_vti_cnf", "zbthumbnails"}
)
# Folders of previews only where they repeat the pictures above them: such words may as well name a class.
_PREVIEW_FOLDERS = frozenset({"thumbs", "thumb", "previews"})

ORPHAN_LABELS = "label files without a picture"
SECOND_LABELS = "second label files of a picture"
UNNAMED_PICTURES = "pictures that no annotation names"
_UNREAD = "of kinds that are not read: save them as JPEG or PNG"
_SYSTEM = "in hidden or system folders"
_HIDDEN = "hidden"
_BROKEN_LINK = "links to nothing"
_CLOSED = "in a folder that cannot be read"
# What a person can mend comes first.
_REASONS = (ORPHAN_LABELS, SECOND_LABELS, UNNAMED_PICTURES, _UNREAD, _CLOSED, _BROKEN_LINK, _SYSTEM, _HIDDEN)
_LONGEST_LINE, _LONGEST_EXAMPLE = 300, 48


Identity: TypeAlias = tuple[int, int] | str
"""Of a file: device and number there, or its path where that has no numbers."""


@dataclass(frozen=True)
class FolderImages:
    """What a walk through a folder and its sub-folders found.

    Attributes:
        images: the picture files, in the order of their paths.
        passed_over: the other files that a person may take for pictures of the folder, by the reason in a few words.
    """

    images: tuple[Path, ...]
    passed_over: Mapping[str, tuple[Path, ...]]


def find_images(folder: Path) -> FolderImages:
    """The pictures of a folder and its sub-folders, told by their suffix; linked folders are entered, each once.

    Hidden files and folders, and those that a system keeps for itself (`@eaDir`, `__MACOSX`), are passed over. A
    folder that is there and linked to goes by its own name, not by the link's.
    """
    images: list[Path] = []
    passed_over: dict[str, list[Path]] = {}
    for path, reason in _walk(folder):
        if reason is None:
            images.append(path)
        else:
            passed_over.setdefault(reason, []).append(path)
    return FolderImages(tuple(sorted(images)), {reason: tuple(sorted(paths)) for reason, paths in passed_over.items()})


def any_images(folder: Path) -> Iterator[Path]:
    """The pictures of `find_images` one by one, in no order: for who needs but the first few."""
    return (path for path, reason in _walk(folder) if reason is None)


def passed_over_line(passed_over: Mapping[str, Sequence[Path]]) -> str | None:
    """One line that says how many files were passed over and why, what can be mended first; None if there are none.

    Every reason has an example as long as the line stays short.
    """
    if not passed_over:
        return None
    rank = {reason: number for number, reason in enumerate(_REASONS)}
    reasons = sorted(passed_over, key=lambda reason: rank.get(reason, len(rank)))
    total = sum(map(len, passed_over.values()))
    line = f"{total} file{'' if total == 1 else 's'} passed over: "
    for examples in range(len(reasons), -1, -1):
        told = [
            f"{len(passed_over[reason])} {reason}" + (f" (such as {_example(passed_over[reason][0])})" if shown else "")
            for reason, shown in zip(reasons, [True] * examples + [False] * len(reasons), strict=False)
        ]
        if len(line) + len("; ".join(told)) <= _LONGEST_LINE:
            break
    return line + "; ".join(told)


def _example(path: Path) -> str:
    """The end of a path, as far as a line has room for it."""
    told = "/".join(path.parts[-2:])
    return told if len(told) <= _LONGEST_EXAMPLE else f"...{told[-_LONGEST_EXAMPLE:]}"


def is_hidden(name: str) -> bool:
    """Whether a file or folder of this name is one that a system or program keeps for itself."""
    return name.startswith(".") or name.lower() in _SYSTEM_FOLDERS


def file_identity(path: Path) -> Identity:
    """What is equal for two names of one file, through links and spellings."""
    try:
        found = path.stat()
    except (OSError, ValueError):
        return os.path.abspath(path)  # noqa: PTH100 - of a file that is not there, `resolve` may fail
    # Some file systems number no files.
    return (found.st_dev, found.st_ino) if found.st_ino else str(path.resolve())


def may_hold(place: Path, identities: Set[Identity]) -> bool:
    """Whether a folder may lead to one of these files, told by a listing alone: for sure where this says no.

    Where there are links it may, and so may what is no folder.
    """
    numbers = {identity[1] for identity in identities if isinstance(identity, tuple)}
    if any(isinstance(identity, str) for identity in identities):
        return True
    waiting = [str(place)]
    while waiting:
        try:
            with os.scandir(waiting.pop()) as entries:
                for entry in entries:
                    if entry.is_symlink() or entry.inode() in numbers:
                        return True
                    if entry.is_dir(follow_symlinks=False):
                        waiting.append(entry.path)
        except OSError:
            return True
    return False


def _walk(folder: Path) -> Iterator[tuple[Path, str | None]]:
    """Each picture file, with the reason if it is passed over."""
    entered: set[Identity] = set()
    waiting = deque([folder])
    while waiting:
        inside = waiting.popleft()
        identity = file_identity(inside)
        if identity in entered:  # a link to a folder above, or a second one to this
            continue
        entered.add(identity)
        try:
            with os.scandir(inside) as listing:
                entries = sorted(listing, key=lambda entry: entry.name)
        except OSError:
            yield inside, _CLOSED
            continue
        hidden = inside != folder and is_hidden(inside.name)
        for entry in entries:
            path = inside / entry.name
            if entry.is_dir():
                # Links come last: what is linked to goes by its own name.
                if not hidden and _is_previews(path, entries):
                    yield from ((path / name, _SYSTEM) for name in sorted(_pictures_in(path)))
                elif not hidden:
                    (waiting.append if entry.is_symlink() else waiting.appendleft)(path)
                continue
            suffix = os.path.splitext(entry.name)[1].lower()  # noqa: PTH122  (quick for 118k of them)
            if suffix in IMAGE_SUFFIXES and hidden:
                yield path, _SYSTEM
            elif suffix in _UNREAD_SUFFIXES and not hidden:
                yield path, _UNREAD
            elif suffix in IMAGE_SUFFIXES:
                yield path, _HIDDEN if is_hidden(entry.name) else None if entry.is_file() else _BROKEN_LINK


def _is_previews(folder: Path, above: Sequence[os.DirEntry[str]]) -> bool:
    """Whether a folder, by its name one of previews, repeats pictures that lie above it."""
    if folder.name.lower() not in _PREVIEW_FOLDERS:
        return False
    stems = {os.path.splitext(entry.name)[0] for entry in above}  # noqa: PTH122  (names alone)
    inside = _pictures_in(folder)
    return bool(inside) and all(Path(name).stem in stems for name in inside)


def _pictures_in(folder: Path) -> list[str]:
    try:
        names = os.listdir(folder)  # noqa: PTH208  (names alone are wanted)
    except OSError:
        return []
    return [name for name in names if Path(name).suffix.lower() in IMAGE_SUFFIXES]
