"""The one exception that is meant for a person, and how paths stand in the commands that a person is told."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
from pathlib import Path

# What a path begins with that was an address: Path("s3://bucket/x") is a folder called "s3:" and what is in it.
_BUCKETS = re.compile(r"(s3a?|gs|gcs|az|abfss?|hdfs|sftp):")


class ToodError(Exception):
    """Something the user can mend: the message is one clear sentence saying what is wrong, where, and what to do.

    The command line prints the message alone and exits with code 2; a library user catches this class.
    """


class PictureError(ToodError):
    """A picture that cannot be used.

    Attributes:
        reason: the sentence without the picture's name in front.
    """

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(f"{name}: {reason}")
        self.name, self.reason = name, reason

    def __reduce__(self) -> tuple[type[PictureError], tuple[str, str]]:
        return type(self), (self.name, self.reason)


class SettingError(ToodError):
    """A setting whose value cannot be.

    Attributes:
        key: the setting's, dotted from the part of the configuration on that knows it, as in `optimizer.lr`.
    """

    def __init__(self, key: str, problem: str) -> None:
        super().__init__(f"{key} {problem}")
        self.key, self.problem = key, problem

    def __reduce__(self) -> tuple[type[SettingError], tuple[str, str]]:
        return type(self), (self.key, self.problem)


class SharedError(ToodError):
    """An error that ends all processes of a run, whichever of them met it: one of them says it."""


def one_line(error: BaseException) -> str:
    """What another library's error says, without line breaks, or its kind if it says nothing."""
    return " ".join(str(error).split()) or type(error).__name__


def first_line(error: BaseException) -> str:
    """The first line of what another library's error says (a stack may follow), or its kind if it says nothing."""
    return (str(error).strip() or type(error).__name__).partition("\n")[0]


def quoted(path: Path | str) -> str:
    """A path as one word of a command that can be pasted, whatever blanks, quotes or signs are in it."""
    return shlex.quote(str(path)) if os.name == "posix" else subprocess.list2cmdline([str(path)])


def require_local(path: Path | str) -> None:
    """Refuses an address of a bucket, where files of this machine alone are read and written.

    Raises:
        ToodError: if it is one.
    """
    parts = Path(path).parts
    if parts and _BUCKETS.fullmatch(parts[0]):
        raise ToodError(
            f"{parts[0]}//{'/'.join(parts[1:])} is not on this machine: only tood predict --engine ray reads and "
            "writes buckets; copy the files here, or mount the bucket"
        )
