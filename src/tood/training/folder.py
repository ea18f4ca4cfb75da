"""A run's folder: claimed by one run, locked while it is written, given back where nothing came of it."""

from __future__ import annotations

import errno
import logging
import os
import re
import socket
import sys
import weakref
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import chain, count
from pathlib import Path
from typing import Literal

from tood.errors import ToodError
from tood.training.checkpoint import CHECKPOINT, DAMAGED, NUMBERED, is_checkpoint
from tood.whole_file import remove_unfinished

log = logging.getLogger(__name__)

Resume = bool | Literal["auto"]

CONFIG = "config.yaml"
# By which a run's configuration is told from another program's file of that name: how its first line begins.
CONFIG_MARK = "# tood train --config "
LOCK = ".tood-running"
RUNS = Path("runs")

_WRITTEN = (CONFIG, "metrics.csv", "best.safetensors", "last.safetensors", CHECKPOINT, DAMAGED, "tensorboard")
# What a lock that another holds is refused with.
_HELD = (errno.EACCES, errno.EAGAIN, errno.EWOULDBLOCK, errno.EDEADLK)
_NAMED_AT_MOST = 3
_TRIES = 20


@dataclass(frozen=True)
class RunFolder:
    """A folder that this run alone writes to.

    Attributes:
        path: of it.
        resumes: whether a run is in it already, to go on with.
    """

    path: Path
    resumes: bool = False


@contextmanager
def claimed_folder(
    out: Path | None, candidates: Iterable[Path], resume: Resume = False, also: Sequence[str] = ()
) -> Iterator[RunFolder]:
    """The folder of a run, its alone while this lasts.

    It is made if need be, and locked: the lock ends with the process, however that ends. Where the body fails before
    anything is written, what was made goes again. The lock is the system's `flock`, so on a shared file system it is
    seen by other machines if that passes locks on (NFS and Lustre do by default); where it knows none, a line in the
    log says that nothing keeps a second run out.

    Args:
        out: the folder that the person named, None for the first of `candidates` that does not exist.
        candidates: where to look for one.
        resume: True goes on with the run in `out`, "auto" does so if there is one, False wants none there.
        also: names of more that the caller writes into a new run's folder.

    Raises:
        ToodError: another run is writing there, the folder holds a run that is not to be resumed, or files that this
            one would replace, or it cannot be written.
    """
    if resume is True and out is not None:
        _require_run(out)
    made: list[Path] = []
    try:
        lock = _first_free(candidates, made) if out is None else _named(out, made)
    except OSError as error:
        _give_back(made)
        where = error.filename or out
        raise ToodError(f"{where} cannot be written: {error.strerror or error}; give another --out") from error
    except ToodError:
        _give_back(made)
        raise
    done = False
    try:
        yield RunFolder(lock.folder, _look_into(lock.folder, resume, also))
        done = True
    finally:
        lock.release()
        if not done:
            _give_back(made)


def next_run_folder(name: str, parent: Path = RUNS) -> Path:
    """`runs/<name>-1`, or the next number that is free now; `train` claims it."""
    return next(folder for folder in run_folders(name, parent) if not folder.exists())


def run_folders(name: str, parent: Path = RUNS, unnumbered: bool = False) -> Iterator[Path]:
    """`runs/<name>-1`, `runs/<name>-2` and so on for ever.

    Args:
        name: of the run.
        parent: of the folders.
        unnumbered: the first one is `runs/<name>`.
    """
    numbered = (parent / f"{name}-{number}" for number in count(2 if unnumbered else 1))
    return chain([parent / name], numbered) if unnumbered else numbered


def latest_run_folder(parent: Path = RUNS) -> Path:
    """The folder whose checkpoint is the newest.

    Raises:
        ToodError: if there is none.
    """
    checkpoints = sorted(parent.glob(f"*/{CHECKPOINT}"), key=lambda path: path.stat().st_mtime)
    if not checkpoints:
        raise ToodError(f"there is no run to resume in {parent}/: name its folder with --out")
    return checkpoints[-1].parent


def holds_run(folder: Path) -> bool:
    """Whether a run of this package is in it: by the mark in its configuration, or in its checkpoint."""
    try:
        with (folder / CONFIG).open(encoding="utf-8", errors="replace") as file:
            marked = file.read(len(CONFIG_MARK)) == CONFIG_MARK
    except OSError:
        return False
    return marked or is_checkpoint(folder / CHECKPOINT)


def _require_run(out: Path) -> None:
    if not (out / CONFIG).exists():
        raise ToodError(f"there is no run in {out} to resume: leave --resume out to start a new one")
    if not holds_run(out):
        raise ToodError(
            f"{out / CONFIG} is not of a run of tood (such a file begins with '{CONFIG_MARK.strip()}'): there is "
            "nothing to resume; give the --out of a run"
        )


def _look_into(out: Path, resume: Resume, also: Sequence[str]) -> bool:
    """Whether to go on with a run in the folder, which is locked."""
    if holds_run(out):
        if resume is False:
            raise ToodError(f"{out} already holds a run: add --resume to continue it, or give another --out")
        remove_unfinished(out)
        return True
    names = [name for name in (*_WRITTEN, *also) if os.path.lexists(out / name)]
    names += [path.name for path in out.glob("checkpoint-*.pt") if re.fullmatch(NUMBERED, path.name)]
    if names:
        shown = ", ".join(names[:_NAMED_AT_MOST]) + (", ..." if len(names) > _NAMED_AT_MOST else "")
        raise ToodError(
            f"{out} holds no run of tood, but {shown}, which a run would replace: give another --out, or move "
            f"{'them' if len(names) > 1 else 'it'} away"
        )
    return False


# --- claiming ------------------------------------------------------------------------------------------------------


def _first_free(candidates: Iterable[Path], made: list[Path]) -> FolderLock:
    for folder in candidates:
        if os.path.lexists(folder) or not _make(folder, made):
            continue
        lock = FolderLock(folder)
        if lock.acquire():
            return lock
        made.remove(folder)  # of who named it, and was faster
    raise AssertionError("the candidates never end")


def _named(out: Path, made: list[Path]) -> FolderLock:
    _make(out, made)
    lock = FolderLock(out)
    if not lock.acquire():
        raise ToodError(f"a run is being written to {out} by {lock.holder}: wait for its end, or give another --out")
    return lock


def _make(folder: Path, made: list[Path]) -> bool:
    """Makes a folder, and those above it that are missing; whether it was not there. `made` gets what was made."""
    for attempt in range(_TRIES):
        try:
            for part in (*reversed(folder.parents), folder):
                if not part.is_dir():
                    try:
                        part.mkdir()
                    except FileExistsError:  # by another process in between, or it is a file
                        if not part.is_dir():
                            raise
                    else:
                        made.append(part)
            return bool(made) and made[-1] == folder
        except FileNotFoundError:  # another process gives back what it had made above it
            made[:] = [part for part in made if part.is_dir()]
            if attempt == _TRIES - 1:
                raise
    return False


def _give_back(made: Sequence[Path]) -> None:
    """Removes what is still empty."""
    for folder in reversed(made):
        with suppress(OSError):
            folder.rmdir()


# --- the lock ------------------------------------------------------------------------------------------------------


class FolderLock:
    """A lock on a folder, by a file in it that is there while it is held, or after a process was killed that held it.

    `filelock` leaves its files for ever, as who removes one must know that nobody took it meanwhile; here who takes
    one looks whether it is still the file of that name.

    Args:
        folder: to be locked.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.path = folder, folder / LOCK
        self._descriptor: int | None = None
        if hasattr(os, "register_at_fork"):
            # A forked process that loads images would otherwise hold the lock when its trainer is dead.
            own = weakref.ref(self)
            os.register_at_fork(after_in_child=lambda: None if (lock := own()) is None else lock._close())

    def acquire(self) -> bool:
        """Takes it; False where another process has it.

        Raises:
            OSError: the folder cannot be written.
        """
        while True:
            descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0), 0o666)
            try:
                if not _lock(descriptor):
                    os.close(descriptor)
                    return False
                current = os.path.lexists(self.path) and os.path.samestat(os.fstat(descriptor), self.path.stat())
                if current:
                    os.ftruncate(descriptor, 0)
                    os.write(descriptor, f"process {os.getpid()} on {socket.gethostname()}\n".encode())
                    self._descriptor = descriptor
                    return True
            except FileNotFoundError:
                pass
            os.close(descriptor)  # who had it has removed it

    @property
    def holder(self) -> str:
        """The process that holds the folder, in words for a person."""
        try:
            return self.path.read_text(encoding="utf-8", errors="replace").strip() or "another process"
        except OSError:
            return "another process"

    def release(self) -> None:
        """Gives it back, and removes its file."""
        if self._descriptor is None:
            return
        if sys.platform == "win32":  # which removes no file that is open
            self._close()
        with suppress(OSError):
            self.path.unlink()
        self._close()

    def _close(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


def _lock(descriptor: int) -> bool:
    """Locks an open file until it is closed or the process ends; False where another has."""
    try:
        if sys.platform == "win32":
            import msvcrt

            os.lseek(descriptor, 1 << 30, os.SEEK_SET)  # beyond the text, which others read
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
            os.lseek(descriptor, 0, os.SEEK_SET)
        else:
            import fcntl

            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in _HELD:
            return False
        log.warning("this file system has no locks (%s): nothing keeps a second run out of the folder", error.strerror)
    return True
