"""A folder that one process alone writes to, for as long as it runs."""

from __future__ import annotations

import errno
import logging
import os
import socket
import sys
import weakref
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from tood.errors import ToodError, require_local
from tood.file_identity import is_open_as

log = logging.getLogger(__name__)

# What a lock that another holds is refused with.
_HELD = (errno.EACCES, errno.EAGAIN, errno.EWOULDBLOCK, errno.EDEADLK)
_TRIES = 20
_MARK = b"process "


class FolderLock:
    """A lock on a folder, by a file in it that is there while it is held, or after a process was killed that held it.

    It ends with the process, however that ends. It is the system's `flock`, so on a shared file system it is seen by
    other machines if that passes locks on (NFS and Lustre do by default); where it knows none, a line in the log says
    that nothing keeps a second process out.

    `filelock` leaves its files for ever, as who removes one must know that nobody took it meanwhile; here who takes
    one looks whether it is still the file of that name.

    Args:
        folder: to be locked.
        name: of the file; locks of other names do not concern each other.
    """

    def __init__(self, folder: Path, name: str) -> None:
        self.folder, self.path = folder, folder / name
        self._descriptor: int | None = None

    def acquire(self) -> bool:
        """Takes it; False where another has it, be it in this process.

        Raises:
            OSError: the folder cannot be written.
            ToodError: the file is somebody else's.
        """
        while True:
            descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0), 0o666)
            try:
                if not _lock(descriptor):
                    os.close(descriptor)
                    return False
                if is_open_as(self.path, descriptor):
                    self._sign(descriptor)
                    self._descriptor = descriptor
                    _held_here.add(self)
                    return True
            except BaseException:
                os.close(descriptor)
                raise
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

    def _sign(self, descriptor: int) -> None:
        if os.read(descriptor, len(_MARK)) not in (b"", _MARK):
            raise ToodError(f"{self.path} is no lock of tood's: move it away, or give another --out")
        os.ftruncate(descriptor, 0)
        os.lseek(descriptor, 0, os.SEEK_SET)
        os.write(descriptor, _MARK + f"{os.getpid()} on {socket.gethostname()}\n".encode())

    def _close(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None
        _held_here.discard(self)


_held_here: weakref.WeakSet[FolderLock] = weakref.WeakSet()


def _close_in_child() -> None:
    """A forked process that loads images would otherwise hold the locks when its trainer is dead."""
    for lock in list(_held_here):
        lock._close()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_close_in_child)


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


# --- folders that are made for it, and given back ------------------------------------------------------------------


def make_folder(folder: Path, made: list[Path]) -> bool:
    """Makes a folder, and those above it that are missing; whether it was not there. `made` gets what was made.

    Raises:
        OSError: it cannot be made.
        ToodError: it is a bucket's.
    """
    require_local(folder)
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


def give_back(made: Sequence[Path]) -> None:
    """Removes what is still empty of what `make_folder` made."""
    for folder in reversed(made):
        with suppress(OSError):
            folder.rmdir()
