"""Which files of a folder are its pictures, and why the others are passed over."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

IMAGE_SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".png", ".bmp", ".webp", ".tif", ".tiff", ".gif", ".ppm", ".pgm", ".pbm"}
)
"""By these a folder's pictures are told from its other files; a file that is named itself may be called anything."""

# Pictures, for a person, that no decoder here reads.
_UNREAD_SUFFIXES = frozenset(
    {".heic", ".heif", ".avif", ".jxl", ".dng", ".cr2", ".cr3", ".nef", ".arw", ".orf", ".rw2", ".raf", ".raw"}
    | {".psd", ".svg", ".exr", ".hdr", ".jp2", ".tga"}
)

# Folders that a system or a program keeps for itself, with previews or leftovers of pictures in them.
_SYSTEM_FOLDERS = frozenset(
    {"__macosx", "@eadir", "#recycle", "$recycle.bin", "system volume information", "lost+found"}
)


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

    Hidden files and folders, and those that a system keeps for itself (`@eaDir`, `__MACOSX`), are passed over.
    """
    images: list[Path] = []
    passed_over: dict[str, list[Path]] = {}
    entered: set[tuple[int, int]] = set()
    for parent, folders, files in os.walk(folder, followlinks=True):
        identity = os.stat(parent)  # noqa: PTH116 - a path is made of what is kept alone
        if (identity.st_dev, identity.st_ino) in entered:  # a link to a folder above, or a second one to this
            folders.clear()
            continue
        entered.add((identity.st_dev, identity.st_ino))
        inside = Path(parent)
        kept = inside == folder or not is_hidden(inside.name)
        if not kept:
            reason = f"in a hidden or system folder ({inside.name})"
            pictures = [inside / name for name in files if Path(name).suffix.lower() in IMAGE_SUFFIXES]
            if pictures:
                passed_over.setdefault(reason, []).extend(pictures)
            folders.clear()
            continue
        for name in files:
            path, suffix = inside / name, Path(name).suffix.lower()
            if suffix in _UNREAD_SUFFIXES:
                passed_over.setdefault(f"{suffix} files are not read: save them as JPEG or PNG", []).append(path)
            elif suffix in IMAGE_SUFFIXES and is_hidden(name):
                passed_over.setdefault("hidden", []).append(path)
            elif suffix in IMAGE_SUFFIXES and path.is_file():
                images.append(path)
            elif suffix in IMAGE_SUFFIXES:
                passed_over.setdefault("links to nothing", []).append(path)
    return FolderImages(tuple(sorted(images)), {reason: tuple(sorted(paths)) for reason, paths in passed_over.items()})


def is_hidden(name: str) -> bool:
    """Whether a file or folder of this name is one that a system or program keeps for itself."""
    return name.startswith(".") or name.lower() in _SYSTEM_FOLDERS
