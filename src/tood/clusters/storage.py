"""Files and folders on this machine or in a bucket, by fsspec, and pyarrow's own file systems where it lacks one."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tood.errors import ToodError, one_line
from tood.web import ADDRESS
from tood.whole_file import remove_unfinished, whole_file

# A file appears there when all of it has arrived.
_WHOLE_AT_ONCE = {"s3", "s3a", "gs", "gcs", "abfs", "az", "memory"}
# Ends the names of files that are being written elsewhere, which begin with a dot: no reader takes them for parts.
_UNFINISHED = ".unfinished"
# Buckets that pyarrow reads by itself, where fsspec's package for them is not installed.
_OF_PYARROW = {"s3", "s3a", "gs", "gcs"}
# What pyarrow says of keys that a server does not take.
_REFUSED = ("ACCESS_DENIED", "INVALID_ACCESS_KEY_ID", "SIGNATURE_DOES_NOT_MATCH")


@dataclass(frozen=True)
class Place:
    """A file or folder on a file system.

    Attributes:
        uri: what it is called: an address such as s3://bucket/folder, or an absolute path.
        system: fsspec's file system.
        path: of it there.
    """

    uri: str
    system: Any
    path: str

    @staticmethod
    def of(source: str) -> Place:
        """The place of that address or path, which need not exist.

        Raises:
            ToodError: if no installed package knows the file system, or the address is none.
        """
        found = ADDRESS.match(source)
        rest = (source[len(found[0]) :] if found else source).rstrip("/")
        if found is None or found["protocol"].lower() == "file":
            from fsspec.implementations.local import LocalFileSystem

            path = Path(rest or "/").expanduser().absolute().as_posix()
            return Place(path, LocalFileSystem(), path)
        protocol = found["protocol"].lower()
        if not rest and protocol in _OF_PYARROW:
            raise ToodError(f"{source} names no bucket: write {protocol}://bucket/folder")
        source = f"{protocol}://{rest}"
        with telling(source, "be reached"):
            system, path = _file_system(protocol, source)
        # In a bucket a name may have it; elsewhere it begins options.
        return Place(source if "?" in path else source.partition("?")[0], system, path)

    @property
    def is_local(self) -> bool:
        """Whether it is on this machine, or mounted there."""
        return "://" not in self.uri

    @property
    def _protocol(self) -> str | None:
        found = ADDRESS.match(self.uri)
        return found["protocol"] if found else None

    @property
    def _whole_at_once(self) -> bool:
        return self._protocol in _WHOLE_AT_ONCE

    def inside(self, name: str) -> Place:
        """A file or folder in this folder, by a relative name with `/`."""
        return Place(f"{self.uri.rstrip('/')}/{name}", self.system, f"{self.path.rstrip('/')}/{name}")

    def exists(self) -> bool:
        """Whether there is a file or a folder of that name.

        Raises:
            ToodError: if that cannot be known, as when a server does not answer.
        """
        with telling(self.uri, "be looked at"):
            if self.is_local:
                return bool(self.system.exists(self.path))
            # fsspec's `exists` and `isdir` may say no where nothing was learnt.
            try:
                self.system.info(self.path)
            except FileNotFoundError:
                return False
            return True

    def is_folder(self) -> bool:
        """Whether it is a folder; in a bucket, whether anything's name begins so.

        Raises:
            ToodError: if that cannot be known.
        """
        with telling(self.uri, "be looked at"):
            found = bool(self.system.isdir(self.path))
        if not found:
            self.exists()
        return found

    def read(self) -> bytes:
        """The bytes of a file.

        Raises:
            ToodError: if there is none, or it cannot be read.
        """
        with telling(self.uri, "be read"):
            content: bytes = self.system.cat_file(self.path)
            return content

    def write(self, content: bytes) -> None:
        """Write a file, which appears whole or not at all, in the place of an earlier one.

        Raises:
            ToodError: if it cannot be written.
        """
        with telling(self.uri, "be written"):
            if self.is_local:
                with whole_file(self.path) as temporary:
                    temporary.write_bytes(content)
            elif self._whole_at_once:
                self.system.pipe_file(self.path, content)
            else:
                self._write_and_rename(content)

    def _write_and_rename(self, content: bytes) -> None:
        """Under a name of this writer's own first: another one, perhaps given up, may be in the middle of the same."""
        folder, _, name = self.path.rpartition("/")
        self.system.makedirs(folder, exist_ok=True)
        temporary = f"{folder}/.{name}.{secrets.token_hex(6)}{_UNFINISHED}"
        for last in (False, True):
            try:
                self.system.pipe_file(temporary, content)
                self.system.mv(temporary, self.path)
            except FileNotFoundError:  # `remove_unfinished` of another run in this folder
                if last:
                    raise
            else:
                return

    def remove_unfinished(self) -> None:
        """Removes what writers that died have left in this folder; those who are at work still begin their file anew.

        From disks nothing while `RAY_ADDRESS` is set: of other machines' processes nothing is known there.

        Raises:
            ToodError: if that cannot be done.
        """
        if self.is_local:
            if not os.environ.get("RAY_ADDRESS"):
                remove_unfinished(Path(self.path))
            return
        if self._whole_at_once:
            return
        left = (name for name in self.names() if name.startswith(".") and name.endswith(_UNFINISHED))
        with telling(self.uri, "be tidied"):
            for name in left:
                with suppress(FileNotFoundError):  # another run was faster
                    self.system.rm_file(self.inside(name).path)

    def names(self) -> list[str]:
        """Names of the files in a folder, none if there is no such folder."""
        self.system.invalidate_cache(self.path)  # other machines write there
        with telling(self.uri, "be listed"):
            try:
                entries = self.system.ls(self.path, detail=True)
            except FileNotFoundError:
                return []
        return sorted(entry["name"].rpartition("/")[2] for entry in entries if entry["type"] == "file")

    def files(self) -> Iterator[Place]:
        """All files below a folder, hidden ones and those in hidden folders aside, in the order of their names."""
        with telling(self.uri, "be listed"):
            entries = self.system.ls(self.path, detail=True)
        for entry in sorted(entries, key=lambda entry: str(entry["name"])):
            name = entry["name"].rstrip("/").rpartition("/")[2]
            if entry["name"].rstrip("/") == self.path:
                if entry["type"] == "directory" and self._protocol in ("s3", "s3a"):
                    raise ToodError(
                        f"{self.uri}// has files whose names have an empty part, which cannot be read: rename them"
                    )
                continue  # a bucket's mark that there is such a folder
            if not name or name.startswith((".", "_tood")):
                continue
            place = self.inside(name)
            if entry["type"] == "directory":
                yield from place.files()
            else:
                yield place


@contextmanager
def telling(uri: str, what: str) -> Iterator[None]:
    """Errors of any file system become a sentence: `uri` cannot `what`.

    Each has exceptions of its own (botocore's, Google's), which have no class in common.
    """
    try:
        yield
    except ToodError:
        raise
    except FileNotFoundError as error:
        nothing = "file or folder" if "://" not in uri else "file, folder or bucket"
        raise ToodError(f"{uri} cannot {what}: there is no such {nothing}") from error
    except Exception as error:
        if "NO_SUCH_BUCKET" in str(error):  # pyarrow, too
            raise ToodError(f"{uri} cannot {what}: there is no such bucket") from error
        if isinstance(error, PermissionError) or any(word in str(error) for word in _REFUSED):
            raise ToodError(f"{uri} cannot {what}: access is denied; are there credentials for it?") from error
        raise ToodError(f"{uri} cannot {what}: {one_line(error)[:300]}") from error


def _file_system(protocol: str, source: str) -> tuple[Any, str]:
    from fsspec.core import url_to_fs

    try:
        system, path = url_to_fs(source)
    except ImportError as error:
        if protocol not in _OF_PYARROW:
            raise ToodError(f"{source} cannot be reached: {one_line(error)}") from error
    except ValueError as error:
        raise ToodError(f"{source} cannot be reached: no file system is called {protocol}") from error
    else:
        return system, str(path).rstrip("/")
    from fsspec.implementations.arrow import ArrowFSWrapper
    from pyarrow.fs import FileSystem

    # By the bucket alone: names in it may have what no URI has (spaces, #, ?).
    bucket, *inside = source.partition("://")[2].split("/", 1)
    native, path = FileSystem.from_uri(f"{'s3' if protocol == 's3a' else protocol}://{bucket}")
    return ArrowFSWrapper(native), "/".join([path, *inside])
