"""The one exception that is meant for a person, and how paths stand in the commands that a person is told."""

from __future__ import annotations

import os
import shlex
import subprocess
from pathlib import Path


class ToodError(Exception):
    """Something the user can mend: the message is one clear sentence saying what is wrong, where, and what to do.

    The command line prints the message alone and exits with code 2; a library user catches this class.
    """


class SharedError(ToodError):
    """An error that ends all processes of a run, whichever of them met it: one of them says it."""


def quoted(path: Path | str) -> str:
    """A path as one word of a command that can be pasted, whatever blanks, quotes or signs are in it."""
    return shlex.quote(str(path)) if os.name == "posix" else subprocess.list2cmdline([str(path)])
