"""What a command wrote into a folder, so that it never replaces or removes anything else there."""

from __future__ import annotations

import json
import os
import re
import stat
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from tood.file_identity import file_identity
from tood.whole_file import Look, sha256_of, whole_file

_VERSION = 1


@dataclass(frozen=True, slots=True)
class FileStamp:
    """What a file was when it was written.

    Attributes:
        size: bytes.
        modified: nanoseconds since the epoch.
        content: SHA-256 of the bytes, `-> TARGET` of a symbolic link, or `= DEVICE:NUMBER SOURCE` of another name of a
            file, with what that file is to the system: such a one is not read.
    """

    size: int
    modified: int
    content: str

    @staticmethod
    def of(path: Path) -> FileStamp:
        """The stamp of a file as it is now; a link is not followed."""
        found = path.lstat()
        if stat.S_ISLNK(found.st_mode):
            return FileStamp(0, 0, f"-> {os.readlink(path)}")  # noqa: PTH115 - as it is written, unchanged
        return FileStamp(found.st_size, found.st_mtime_ns, sha256_of(path))

    @staticmethod
    def of_hard_link(path: Path, source: Path) -> FileStamp:
        """The stamp of a file that is another name of `source`, which is not read for it."""
        found = path.lstat()
        return FileStamp(
            found.st_size,
            found.st_mtime_ns,
            f"= {found.st_dev}:{found.st_ino} {os.path.abspath(source)}",  # noqa: PTH100
        )

    def fits(self, path: Path, before: int) -> bool:
        """Whether a file is still the same.

        Args:
            path: the file.
            before: nanoseconds since the epoch; a file of the same size and time that is older than this is believed,
                any other is read. A hard link is compared with its source, if that is still what it was.
        """
        try:
            found = path.lstat()
            if stat.S_ISLNK(found.st_mode) or not stat.S_ISREG(found.st_mode):
                return stat.S_ISLNK(found.st_mode) and FileStamp.of(path) == self
            if found.st_size != self.size:
                return False
            believed = found.st_mtime_ns == self.modified and found.st_mtime_ns < before
            linked = _HARD_LINK.fullmatch(self.content)
            if linked is None:
                return believed or sha256_of(path) == self.content
            same = believed and f"{found.st_dev}:{found.st_ino}" == linked["number"]
            return same or self._is_as(path, Path(linked["source"]))
        except OSError:
            return False

    def _is_as(self, path: Path, source: Path) -> bool:
        """Whether a file holds what the source does, and that is what the stamp was made of."""
        found = source.stat()
        if (found.st_size, found.st_mtime_ns) != (self.size, self.modified):
            return False
        return file_identity(path) == file_identity(source) or sha256_of(path) == sha256_of(source)


_HARD_LINK = re.compile(r"= (?P<number>\d+:\d+) (?P<source>.*)", re.DOTALL)


@dataclass(frozen=True)
class Manifest:
    """The files that a command wrote into a folder.

    Attributes:
        files: stamps by the path inside the folder, with `/`.
        folders: paths of the sub-folders.
        saved: nanoseconds since the epoch at which the list itself was written.
    """

    files: Mapping[str, FileStamp]
    folders: frozenset[str] = frozenset()
    saved: int = 0

    @staticmethod
    def of(folder: Path, known: Mapping[str, FileStamp] | None = None) -> Manifest:
        """Everything that lies in a folder now; `known` are stamps, by the path, that need not be made any more."""
        known = known or {}
        files, folders = {}, set()
        for path, is_folder in _entries(folder):
            name = path.relative_to(folder).as_posix()
            if is_folder:
                folders.add(name)
            else:
                files[name] = known.get(str(path)) or FileStamp.of(path)
        return Manifest(files, frozenset(folders))

    @staticmethod
    def read(path: Path) -> Manifest | None:
        """The list in a file; None if there is none, or it is no such list."""
        try:
            raw = json.loads(path.read_text("utf-8"))
            if raw["version"] != _VERSION:
                return None
            files = {str(name): FileStamp(**entry) for name, entry in raw["files"].items()}
            return Manifest(files, frozenset(map(str, raw["folders"])), path.lstat().st_mtime_ns)
        except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
            return None

    def write(self, path: Path) -> None:
        """Write the list; it appears whole or not at all."""
        content = {
            "note": "what tood wrote into this folder: it replaces these files alone",
            "version": _VERSION,
            "folders": sorted(self.folders),
        }
        with whole_file(path) as temporary, temporary.open("w", encoding="utf-8") as file:
            # ASCII alone: a file name need not be Unicode. Line by line: there may be millions.
            file.write(json.dumps(content, indent=0).removesuffix("\n}") + ',\n"files": {')
            between = "\n"
            for name in sorted(self.files):
                file.write(f"{between}{json.dumps(name)}: {json.dumps(asdict(self.files[name]))}")
                between = ",\n"
            file.write("\n}\n}")

    def holds(self, folder: Path, name: str) -> bool:
        """Whether a file of the folder was written by the command and is unchanged."""
        entry = self.files.get(name)
        return entry is not None and entry.fits(folder / name, self.saved)

    def strangers(self, folder: Path, own: str) -> list[str]:
        """What lies in a folder that was not written there, or has changed since; `own` is the list's own file name.

        Raises:
            OSError: if the folder cannot be looked through.
        """
        found = []
        for path, is_folder in _entries(folder):
            name = path.relative_to(folder).as_posix()
            known = name in self.folders if is_folder else name == own or self.holds(folder, name)
            if not known:
                found.append(f"{name}/" if is_folder else name)
        return sorted(found)

    def remove(self, folder: Path, own: str) -> bool:
        """Remove a folder, but nothing in it that was not written there; gives whether all of it is gone."""
        for path, is_folder in sorted(_entries(folder), reverse=True):
            name = path.relative_to(folder).as_posix()
            with suppress(OSError):
                if is_folder:
                    path.rmdir()
                elif name != own and self.holds(folder, name):
                    path.unlink()
        with suppress(OSError):
            if [path.name for path in folder.iterdir()] == [own]:
                (folder / own).unlink()
            folder.rmdir()
        return not folder.exists()


def look_at(folder: Path) -> Look:
    """By what a change of anything in a folder is seen, without reading it.

    Raises:
        OSError: if the folder cannot be looked through.
    """
    look = {}
    for path, is_folder in _entries(folder):
        found = path.lstat()
        changes = () if is_folder else (found.st_size, found.st_mtime_ns)
        look[path.relative_to(folder).as_posix()] = (found.st_mode, found.st_ino, *changes)
    return look


def _entries(folder: Path) -> Iterator[tuple[Path, bool]]:
    """Everything below a folder, and whether it is a folder itself; links are not followed."""

    def fail(error: OSError) -> None:
        raise error

    for parent, folders, files in os.walk(folder, onerror=fail):
        inside = Path(parent)
        for name in folders:
            path = inside / name
            yield path, not path.is_symlink()
        for name in files:
            yield inside / name, False
