"""Text files as people's tools write them: with or without a byte order mark, in UTF-8 or Windows' UTF-16."""

from __future__ import annotations

import codecs
from pathlib import Path


def read_text(path: Path) -> str:
    """The text of a file, without its byte order mark.

    Raises:
        OSError: it is not there, or may not be read.
        ValueError: it is no text in UTF-8, nor in UTF-16 that says so.
    """
    data = path.read_bytes()
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return data.decode("utf-16")
    return data.decode("utf-8-sig")


def read_lines(path: Path) -> list[str]:
    """The lines of a text file that are not blank, without the blanks at their ends; errors as for `read_text`."""
    return [line.strip() for line in read_text(path).splitlines() if line.strip()]
