"""Text files as people's tools write them: with or without a byte order mark, in UTF-8 or Windows' UTF-16."""

from __future__ import annotations

import codecs
from pathlib import Path

from tood.errors import quoted


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


def other_encoding(path: Path) -> str:
    """What is to be told about a file that is not UTF-8, with the command that makes it so."""
    data = path.read_bytes()
    for encoding in ("gb18030", "shift_jis", "euc_kr", "cp1251", "cp1252"):
        try:
            data.decode(encoding)
        except ValueError:
            continue
        new = quoted(path.with_name(f"{path.name}.new"))
        return (
            f"is not UTF-8 (it may be {encoding.upper()}): save it as UTF-8, as "
            f"`iconv -f {encoding.upper()} -t UTF-8 {quoted(path)} > {new} && mv {new} {quoted(path)}` does"
        )
    return "is no text in UTF-8: save it as such"


def read_lines(path: Path) -> list[str]:
    """The lines of a text file that are not blank, without the blanks at their ends; errors as for `read_text`."""
    return [line.strip() for line in read_text(path).splitlines() if line.strip()]
