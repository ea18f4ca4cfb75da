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
    {"__macosx", "@eadir", "#recycle", "$recycle.bin", "system volume information", "lost+found"}
)

_HIDDEN = "hidden"
_BROKEN_LINK = "links to nothing"
_CLOSED = "in a folder that cannot be read"


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
    """One line that says how many files were passed over and why, with an example of each; None if there are none."""
    if not passed_over:
        return None
    total = sum(map(len, passed_over.values()))
    told = "; ".join(f"{len(paths)} {reason} (such as {paths[0]})" for reason, paths in passed_over.items())
    return f"{total} file{'' if total == 1 else 's'} passed over: {told}"


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
                if not hidden:
                    (waiting.append if entry.is_symlink() else waiting.appendleft)(path)
                continue
            suffix = os.path.splitext(entry.name)[1].lower()  # noqa: PTH122  (quick for 118k of them)
            if suffix in IMAGE_SUFFIXES and hidden:
                yield path, f"in hidden or system folders ({inside.name})"
            elif suffix in _UNREAD_SUFFIXES and not hidden:
                yield path, f"{suffix} files, which are not read: save them as JPEG or PNG"
            elif suffix in IMAGE_SUFFIXES:
                yield path, _HIDDEN if is_hidden(entry.name) else None if entry.is_file() else _BROKEN_LINK
