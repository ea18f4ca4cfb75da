"""Which names are one file, and whether it is still the same."""

from __future__ import annotations

import os
from pathlib import Path

FileIdentity = tuple[int, int] | str


def file_identity(path: Path, *, follow: bool = True) -> FileIdentity:
    """What is equal for two names of one file, through links and spellings.

    Args:
        path: of a file or folder, there or not.
        follow: of what a link leads to; else of the link itself.
    """
    try:
        found = path.stat() if follow else path.lstat()
    except (OSError, ValueError):
        return os.path.abspath(path)  # noqa: PTH100 - of a file that is not there, `resolve` may fail
    if found.st_ino:
        return found.st_dev, found.st_ino
    # Some file systems number no files.
    return os.path.realpath(path) if follow else str(Path(os.path.realpath(path.parent), path.name))


def size_and_time(path: str) -> list[int] | None:
    """By what a changed file is known, as json has it; None for one that is no file."""
    try:
        found = Path(path).stat()
    except (OSError, ValueError):
        return None
    return [found.st_size, found.st_mtime_ns]


def is_open_as(path: Path, descriptor: int) -> bool:
    """Whether an open file still has a name; where files are not numbered, whether any file has it."""
    try:
        return os.path.samestat(path.stat(), os.fstat(descriptor))
    except OSError:
        return False
