"""Files and folders that appear when everything is in them, or never."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tood.errors import ToodError


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
    # The suffix stays: image writers choose the format by it.
    temporary = path.with_name(f".{path.stem}.{os.getpid()}.tmp{path.suffix}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        if durable:
            _flush(temporary)
        temporary.replace(path)
        if durable and os.name == "posix":  # other systems do not let folders be flushed
            _flush(path.parent)
    except OSError as error:
        raise ToodError(f"{path} cannot be written: {error.strerror or error}") from error
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def remove_unfinished(folder: Path) -> None:
    """Removes what processes that were killed while in `whole_file` have left in a folder; no other may be at it."""
    for left in folder.glob(".*.tmp*"):
        with suppress(OSError):
            left.unlink()


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def whole_folder(target: Path) -> Iterator[Path]:
    """A folder beside `target` to build in, which takes its place at the end, or vanishes if anything fails."""
    target = target.resolve()
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f".{target.name}.{os.getpid()}.part")
    old = target.with_name(f".{target.name}.{os.getpid()}.old")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir()
    try:
        yield part
        if target.exists():
            target.rename(old)
        try:
            part.rename(target)
        except OSError:
            if old.exists():
                old.rename(target)
            raise
        shutil.rmtree(old, ignore_errors=True)
    finally:
        shutil.rmtree(part, ignore_errors=True)
