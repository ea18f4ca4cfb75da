"""A folder of results that one command alone writes to, in which it replaces nothing but its own files."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from tood.errors import ToodError
from tood.folder_lock import FolderLock, give_back, make_folder
from tood.manifest import Manifest
from tood.whole_file import remove_unfinished


def claim(out: Path, lock_name: str, command: str, held: ExitStack) -> None:
    """Make a folder and lock it, until `held` is closed; what was made for it goes then, where it is still empty.

    Args:
        out: the folder.
        lock_name: of the file in it that is there meanwhile.
        command: who writes, in words for a person.
        held: what the lock is held by.

    Raises:
        ToodError: if it cannot be written to, or another process writes to it.
    """
    made: list[Path] = []
    held.callback(give_back, made)
    lock = FolderLock(out, lock_name)
    try:
        make_folder(out, made)
        free = lock.acquire()
    except OSError as error:
        raise not_writable(out, error) from error
    if not free:
        raise ToodError(
            f"another {command} ({lock.holder}) is writing to {out}: wait for its end, or name another --out"
        )
    held.callback(lock.release)
    remove_unfinished(out)


def not_writable(out: Path, error: OSError) -> ToodError:
    """What is told where a folder cannot be written to."""
    return ToodError(f"{out} cannot be written to: {error.strerror or error}")


def require_same_settings(
    out: Path | str,
    earlier: Mapping[str, Any],
    now: Mapping[str, Any],
    *,
    otherwise: str = "leave out --resume to begin anew",
) -> None:
    """Refuse to go on with a run whose results other settings decided.

    Args:
        out: folder of the results.
        earlier, now: the settings.
        otherwise: what a person may do who does not want the same.

    Raises:
        ToodError: if a setting of now has another value there; it names them.
    """
    other = [key for key, value in now.items() if earlier.get(key) != value]
    if other:
        told = ", ".join(f"{key} {earlier.get(key)!r}, now {now[key]!r}" for key in other)
        raise ToodError(
            f"{out}: the run that is to be resumed had other settings ({told}): give the same, or {otherwise}"
        )


def require_own(out: Path, name: str, command: str, *written: Manifest) -> None:
    """Refuse to write a file over one that is no earlier result of the command.

    Raises:
        ToodError: if a file of that name is there, and no list of what was written holds it.
    """
    path = out / name
    if os.path.lexists(path) and not any(manifest.holds(out, name) for manifest in written):
        raise ToodError(
            f"{path} was not written by {command}, or has changed since: move it away, or name another --out"
        )


def require_ours(path: Path, readable: bool, command: str) -> None:
    """Refuse a folder in which something else has the name of a list or journal of the command's."""
    if os.path.lexists(path) and (path.is_symlink() or not readable):
        raise ToodError(f"{path} is none of this version of {command}: move it away, or name another --out")
