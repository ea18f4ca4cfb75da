"""Files and folders that appear when everything is in them, or never."""

from __future__ import annotations

import hashlib
import os
import re
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Protocol

from tood.errors import ToodError

_BLOCK_BYTES = 1 << 20


@contextmanager
def whole_file(path: Path | str, *, durable: bool = False) -> Iterator[Path]:
    """Gives a temporary path beside `path` to write to; at the end it takes the place of `path`.

    The folder is made if need be. If the body fails, `path` stays as it was and nothing is left behind.

    Args:
        path: of the file.
        durable: wait until it is on the disk, so that a power cut leaves the old file or the new one.

    Raises:
        ToodError: if the file cannot be written.
    """
    path = Path(path)
    temporary: Path | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = _new_file(path)
        yield temporary
        if durable:
            _flush(temporary, os.O_RDWR)  # Windows flushes nothing that was opened to be read
        temporary.replace(path)
        if durable and os.name == "posix":  # other systems do not let folders be flushed
            _flush(path.parent, os.O_RDONLY)
    except OSError as error:
        raise ToodError(f"{path} cannot be written: {error.strerror or error}") from error
    finally:
        if temporary is not None:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)


def sha256_of(path: Path) -> str:
    """The SHA-256 of a file's content, in hexadecimal digits; a file of any size is read in small blocks."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_BLOCK_BYTES):
            digest.update(block)
    return digest.hexdigest()


def remove_unfinished(folder: Path) -> None:
    """Removes what processes that were killed while in `whole_file` have left in a folder, and nothing else."""
    for left in folder.glob(".tood-*"):
        name = _TEMPORARY.fullmatch(left.name)
        if name is not None and not _lives(int(name["process"])):
            with suppress(OSError):
                left.unlink()


# Names of temporary files, which no other program gives.
_TEMPORARY = re.compile(r"\.tood-(?P<process>\d+)-[0-9a-f]{12}\.tmp(\..*)?")


def _new_file(path: Path) -> Path:
    """An empty file beside `path` under a name that nothing had, which tells this process."""
    while True:
        # The suffix stays: image writers choose the format by it.
        temporary = path.with_name(f".tood-{os.getpid()}-{secrets.token_hex(6)}.tmp{path.suffix}")
        try:
            temporary.open("xb").close()
        except FileExistsError:
            continue
        return temporary


def _lives(process: int) -> bool:
    """Whether a process of this number runs on this machine."""
    if os.name != "posix":
        return False  # there a file that is open cannot be removed anyhow
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):
        return True  # another person's
    return True


def _flush(path: Path, mode: int) -> None:
    descriptor = os.open(path, mode)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def whole_folder(target: Path, replaces: OldFolder | None = None) -> Iterator[Path]:
    """A folder beside `target` to build in, which takes its place at the end, or vanishes if anything fails.

    Args:
        target: must not exist, or be empty, unless it is to be replaced.
        replaces: knows what may go of the folder that is there.

    Raises:
        OSError: if it cannot be built, or `target` holds something by then; it stays as it was.
    """
    target = target.resolve()
    target.parent.mkdir(parents=True, exist_ok=True)
    part = _beside(target, "part")
    part.mkdir()
    try:
        yield part
        if replaces is not None and target.exists():
            _replace(part, target, replaces)
        else:
            _take_free_place(part, target)
    finally:
        shutil.rmtree(part, ignore_errors=True)


class OldFolder(Protocol):
    """A folder that another is to take the place of."""

    def require_own(self, folder: Path) -> None:
        """Raise an error if it, which now is in `folder`, holds anything that must not go."""

    def remove(self, folder: Path) -> None:
        """Remove the old folder from where it now is."""


def _replace(part: Path, target: Path, replaces: OldFolder) -> None:
    moved = _beside(target, "old")
    target.rename(moved)
    try:
        # Looked at where nobody looks for it any more: what is found is what goes.
        replaces.require_own(moved)
        part.rename(target)
    except BaseException:
        moved.rename(target)
        raise
    replaces.remove(moved)


def _take_free_place(part: Path, target: Path) -> None:
    was_there = target.is_dir()
    if was_there:
        target.rmdir()  # fails if anything is in it
    try:
        part.rename(target)
    except OSError:
        if was_there:
            target.mkdir(exist_ok=True)
        raise


def _beside(target: Path, word: str) -> Path:
    """A path in the same folder that nobody else has."""
    return target.with_name(f".tood-{secrets.token_hex(8)}.{word}")
