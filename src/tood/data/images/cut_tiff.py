"""TIFF files of which the end is gone, told by what their first directory says they hold."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import IO, NamedTuple

import numpy as np

from tood.errors import PictureError

# Where strips and tiles begin, and how many bytes each has.
_OFFSETS, _COUNTS = (273, 324), (279, 325)
# NumPy's kinds by TIFF's types of whole numbers.
_KINDS = {3: "u2", 4: "u4", 16: "u8"}


class _Layout(NamedTuple):
    """How a directory is laid out: formats of `struct` without the byte order, sizes in bytes."""

    offset: str
    entries: str
    entry: str
    held: int


_LAYOUTS = {42: _Layout("I", "H", "HHI4s", 4), 43: _Layout("Q", "Q", "HHQ8s", 8)}


def ends_too_early(name: str, size: int, needed: int) -> PictureError:
    """The error for a TIFF of `size` bytes that has `needed` bytes at least."""
    told = f"{size:,} of at least {needed:,} bytes are there"
    return PictureError(name, f"the file ends too early ({told}): copy or download it again")


def require_end(path: Path) -> None:
    """Looks whether a TIFF goes on as far as its first directory says: to it, and to the beginning of each piece.

    The last piece may be shorter than is said: writers of uncompressed files fill up its rows, or do not.

    Raises:
        PictureError: if the file ends before.
        OSError: if it cannot be opened.
    """
    with path.open("rb") as file:
        size = path.stat().st_size
        needed = _needed(file, size)
    if needed > size:
        raise ends_too_early(str(path), size, needed)


def _needed(file: IO[bytes], size: int) -> int:
    """Number of bytes that the file has at least; 0 where it says nothing that is understood."""
    start = file.read(16)
    order = {b"II": "<", b"MM": ">"}.get(start[:2])
    if order is None or len(start) < 8:
        return 0
    layout = _LAYOUTS.get(*struct.unpack(f"{order}H", start[2:4]))
    if layout is None or len(start) < 2 * layout.held:
        return 0
    (place,) = struct.unpack(f"{order}{layout.offset}", start[layout.held : 2 * layout.held])
    if place < 2 * layout.held:
        return 0
    entries: int = place + struct.calcsize(f"={layout.entries}")
    if entries > size:
        return entries
    file.seek(place)
    (count,) = struct.unpack(f"{order}{layout.entries}", file.read(entries - place))
    length = struct.calcsize(f"={layout.entry}")
    end: int = entries + count * length
    if end > size:
        return end
    found = {}
    for tag, kind, number, held in struct.iter_unpack(f"{order}{layout.entry}", file.read(count * length)):
        if tag in (*_OFFSETS, *_COUNTS) and kind in _KINDS:
            values = np.dtype(f"{order}{_KINDS[kind]}")
            bytes_ = number * values.itemsize
            if bytes_ > len(held):
                (place,) = struct.unpack(f"{order}{layout.offset}", held)
                end = max(end, place + bytes_)
                if end > size:
                    return end
                file.seek(place)
                held = file.read(bytes_)
            found[tag] = np.frombuffer(held[:bytes_], values)
    for offsets, counts in zip(_OFFSETS, _COUNTS, strict=True):
        if offsets in found and counts in found and len(found[offsets]) == len(found[counts]):
            begun = found[offsets][found[counts] > 0]  # others are left out of the file
            end = max(end, 1 + int(begun.max(initial=0)))
    return end
