"""Files and folders that appear when everything is in them, or never."""

from __future__ import annotations

import hashlib
import logging
import os
import re
import secrets
import shutil
import socket
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Protocol

from tood.errors import ToodError, require_local

log = logging.getLogger(__name__)

_BLOCK_BYTES = 1 << 20
# Seconds after which what a process of another machine had begun is its own no longer: that it died is not seen here.
_GIVEN_UP = 24 * 3600


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
    require_local(path)
    temporary: Path | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = new_temporary(path, path.suffix)  # image writers choose the format by it
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


# --- temporary names -----------------------------------------------------------------------------------------------

# Names that no other program gives; they tell the process, its machine, and of folders what they are to become.
_TEMPORARY = re.compile(
    r"\.tood-(?P<process>\d+)-(?P<word>[0-9a-f]{12})\.(?P<kind>tmp|part|old)(-(?P<machine>[0-9a-f]{8}))?(?P<rest>\..*)?"
)


def new_temporary(beside: Path, suffix: str = "") -> Path:
    """An empty file in the folder of `beside` under a name that nothing had, which tells this process."""
    while True:
        temporary = beside.with_name(_name(secrets.token_hex(6), f"tmp-{_machine()}{suffix}"))
        try:
            temporary.open("xb").close()
        except FileExistsError:
            continue
        return temporary


@contextmanager
def scratch_folder() -> Iterator[Path]:
    """A folder for what is of no use afterwards, in the system's place for such; it vanishes at the end.

    Those of processes that were killed go, too.
    """
    place = Path(tempfile.gettempdir())
    remove_unfinished(place)
    folder = place / _name(secrets.token_hex(6), f"tmp-{_machine()}")
    folder.mkdir(mode=0o700)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def remove_unfinished(folder: Path) -> None:
    """Removes what processes that were killed have left of temporary files in a folder, and nothing else.

    What another machine's (or container's) processes have begun goes after a day.
    """
    for left, _ in _left(folder, "tmp"):
        if left.is_dir() and not left.is_symlink():
            shutil.rmtree(left, ignore_errors=True)
        else:
            with suppress(OSError):
                left.unlink()


def _name(word: str, ending: str) -> str:
    return f".tood-{os.getpid()}-{word}.{ending}"


def _left(folder: Path, kind: str) -> Iterator[tuple[Path, re.Match[str]]]:
    """What processes that are gone have left in a folder of temporary names of a kind."""
    for path in folder.glob(".tood-*"):
        name = _TEMPORARY.fullmatch(path.name)
        if name is not None and name["kind"] == kind and _is_left(path, name):
            yield path, name


def _is_left(path: Path, name: re.Match[str]) -> bool:
    if name["machine"] in (None, _machine()):
        return not _lives(int(name["process"]))
    try:
        return time.time() - path.lstat().st_mtime > _GIVEN_UP
    except OSError:  # gone by now
        return False


if sys.platform == "win32":

    def _lives(process: int) -> bool:
        """Whether a process of this number runs on this machine; `os.kill` would end it here."""
        import ctypes

        synchronize, no_such_process, timed_out = 0x100000, 87, 0x102
        system = ctypes.WinDLL("kernel32", use_last_error=True)
        handle = system.OpenProcess(synchronize, False, process)
        if not handle:
            return ctypes.get_last_error() != no_such_process
        try:
            return int(system.WaitForSingleObject(handle, 0)) == timed_out
        finally:
            system.CloseHandle(handle)

else:

    def _lives(process: int) -> bool:
        """Whether a process of this number runs on this machine."""
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


# --- folders -------------------------------------------------------------------------------------------------------


class OldFolder(Protocol):
    """A folder that another is to take the place of."""

    def require_own(self, folder: Path) -> Look:
        """Raise an error if it, which is in `folder`, holds anything that must not go; gives what it looked like."""

    def require_unchanged(self, folder: Path, look: Look) -> None:
        """Raise an error if it, which now is in `folder`, looks otherwise; takes no time to speak of."""

    def remove(self, folder: Path) -> None:
        """Remove the old folder from where it now is."""


Look = Mapping[str, tuple[int, ...]]
"""By what a change of anything in a folder is seen, by the path inside it."""


@contextmanager
def whole_folder(target: Path, replaces: OldFolder | None = None) -> Iterator[Path]:
    """A folder beside `target` to build in, which takes its place at the end, or vanishes if anything fails.

    Args:
        target: must not exist, or be empty, unless it is to be replaced.
        replaces: knows what may go of the folder that is there.

    Raises:
        OSError: if it cannot be built, or `target` holds something by then; it stays as it was.
        ToodError: if it is a bucket's.
    """
    require_local(target)
    target = Path(os.path.realpath(target))
    target.parent.mkdir(parents=True, exist_ok=True)
    word = secrets.token_hex(6)
    part, moved = (target.with_name(_name(word, f"{kind}.{'-'.join(_marks(target))}")) for kind in ("part", "old"))
    part.mkdir()
    try:
        yield part
        if replaces is not None and target.exists():
            _replace(part, target, replaces, moved)
        else:
            _take_free_place(part, target)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def settle_unfinished(target: Path, remove: Callable[[Path], object]) -> None:
    """Ends what a process that was killed while in `whole_folder` for this very folder has left beside it.

    A folder that was to be replaced, and is without its name, gets it back; where the new one has it, the rest of the
    old one goes. What was being built goes. A line in the log tells of each, and of what may be of another machine's
    process and stays.

    Args:
        target: the folder.
        remove: removes an old one, but nothing that was not written there.
    """
    target = Path(os.path.realpath(target))
    for moved in list(_left_of(target, "old")):
        with suppress(OSError):
            if not _twin(moved, "part").exists():
                remove(moved)
            elif not os.path.lexists(target):
                moved.rename(target)
                log.warning("%s: was being replaced when that was killed: it is there again", target)
            if moved.exists():
                log.warning("%s: is what was in %s before it was replaced: move it where you want it", moved, target)
    for part in list(_left_of(target, "part")):
        if not _twin(part, "old").exists():
            log.warning("%s: was being written when that was killed: what was there of it is removed", target)
            shutil.rmtree(part, ignore_errors=True)


def _left_of(target: Path, kind: str) -> Iterator[Path]:
    """What is left of temporary folders for `target` by processes of this machine that are gone."""
    folder, machine = _marks(target)
    for path, name in _left(target.parent, kind):
        if name["rest"] == f".{folder}-{machine}":
            yield path
        elif name["rest"] is not None and name["rest"].startswith(f".{folder}-"):
            log.warning("%s: was left by a process elsewhere that wrote %s, unless that is at work still", path, target)


def _twin(path: Path, kind: str) -> Path:
    """The temporary folder of the other kind of the same process for the same folder."""
    return path.with_name(re.sub(r"\.(part|old)\.", f".{kind}.", path.name))


def _marks(target: Path) -> tuple[str, str]:
    """What a folder is known by, and this machine."""
    return _mark(os.fsencode(target.name)), _machine()


def _machine() -> str:
    """What this machine (or container) is known by: of another one's processes nothing is known here."""
    try:
        processes = os.readlink("/proc/self/ns/pid")  # noqa: PTH115 - no path
    except OSError:
        processes = ""
    return _mark(f"{socket.gethostname()} {processes}".encode())


def _mark(text: bytes) -> str:
    return hashlib.sha256(text).hexdigest()[:8]


def _replace(part: Path, target: Path, replaces: OldFolder, moved: Path) -> None:
    # What takes long is done while it is in its place; where nobody looks for it any more, only what came in meanwhile.
    look = replaces.require_own(target)
    target.rename(moved)
    try:
        replaces.require_unchanged(moved, look)
        part.rename(target)
    except BaseException:
        if not os.path.lexists(target):
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
