"""EXIF orientation: where files keep it, and what it does to pixels, sizes and boxes.

Values, as what makes the stored picture upright: 1 nothing, 2 mirrored left to right, 3 half a turn, 4 mirrored top to
bottom, 5 mirrored along the diagonal from the top left, 6 a quarter turn clockwise, 7 mirrored along the other
diagonal, 8 a quarter turn counter-clockwise.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tood.data.images.headers import (
    JPEG_START,
    PNG_SIGNATURE,
    Read,
    bytes_reader,
    file_reader,
    jpeg_segments,
    part_reader,
)
from tood.data.images.png import TEXT_CHUNKS, raw_profile

ORIENTATION_TAG = 0x0112
_TIFF_STARTS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_EXIF_START = b"Exif\0\0"
# The orientation that undoes one.
INVERSE = {6: 8, 8: 6}


def orientation(data: bytes) -> int:
    """EXIF orientation of an image's bytes: 1 (upright) to 8, 1 where there is none or it makes no sense."""
    return opened_orientation(BytesIO(data), bytes_reader(data))


def file_orientation(path: Path) -> int:
    """The EXIF orientation of a file, 1 to 8, read from its headers alone; 1 where it has none or is not readable."""
    try:
        with path.open("rb", buffering=0) as file:
            return opened_orientation(file, file_reader(file))
    except (OSError, ValueError):
        return 1


def turned_size(size: tuple[int, int], value: int) -> tuple[int, int]:
    """(width, height) of a picture that an orientation has turned."""
    return (size[1], size[0]) if value >= 5 else size


def upright(pixels: NDArray[np.uint8], value: int) -> NDArray[np.uint8]:
    """Pixels [H, W, 3] turned as an EXIF orientation of 1..8 says."""
    if value in (2, 4, 5, 7):
        pixels = pixels[:, ::-1] if value in (2, 5, 7) else pixels[::-1]
    # Quarter turns counter-clockwise that remain after the mirroring above.
    turns = {3: 2, 5: 1, 6: 3, 7: 3, 8: 1}.get(value, 0)
    return np.ascontiguousarray(np.rot90(pixels, turns))


def turn_boxes(boxes: NDArray[np.float32], size: tuple[int, int], value: int) -> NDArray[np.float32]:
    """Boxes on the stored picture as they lie on the turned one.

    Args:
        boxes: [G, 4] x1 y1 x2 y2.
        size: (width, height) of the stored picture.
        value: its EXIF orientation.
    """
    x1, y1, x2, y2 = boxes.T.astype(np.float64)
    width, height = size
    columns = {
        1: (x1, y1, x2, y2),
        2: (width - x2, y1, width - x1, y2),
        3: (width - x2, height - y2, width - x1, height - y1),
        4: (x1, height - y2, x2, height - y1),
        5: (y1, x1, y2, x2),
        6: (height - y2, x1, height - y1, x2),
        7: (height - y2, width - x2, height - y1, width - x1),
        8: (y1, width - x2, y2, width - x1),
    }[value]
    return np.stack(columns, axis=1).astype(np.float32)


def without_tiff_orientation(data: bytes) -> bytes:
    """The bytes of a TIFF file that says it is upright, for decoders that turn what says otherwise by themselves."""
    entry = _tiff_orientation_entry(bytes_reader(data))
    if entry is None:
        return data
    at, form = entry
    changed = bytearray(data)
    struct.pack_into(form, changed, at, 1)
    return bytes(changed)


def is_tiff(data: bytes) -> bool:
    """Whether the first bytes of a file are those of a TIFF."""
    return data.startswith(_TIFF_STARTS)


def opened_orientation(file: BinaryIO, read: Read) -> int:
    """The same of a file that is open, and is read by `read` too."""
    try:
        start = read(0, 16)
        if start.startswith(JPEG_START):
            return _jpeg_orientation(read)
        if is_tiff(start):
            return _tiff_orientation(read)
        if start.startswith(PNG_SIGNATURE):
            exif = _png_exif(file)
        elif start[:4] == b"RIFF" and start[8:12] == b"WEBP":
            exif = _webp_exif(file)
        else:
            return 1
        return 1 if exif is None else _exif_orientation(exif)
    except (OSError, ValueError, struct.error, OverflowError):
        return 1


def _exif_orientation(exif: bytes) -> int:
    """The orientation in a block of EXIF, which is a small TIFF file."""
    return _tiff_orientation(bytes_reader(exif.removeprefix(_EXIF_START)))


def _jpeg_orientation(read: Read) -> int:
    """That of a JPEG's EXIF, of which the entries alone are read, not a preview behind them."""
    for marker, start, end in jpeg_segments(read):
        if marker == 0xE1 and read(start, len(_EXIF_START)) == _EXIF_START:
            return _tiff_orientation(part_reader(read, start + len(_EXIF_START), end))
    return 1


def _tiff_orientation(read: Read) -> int:
    entry = _tiff_orientation_entry(read)
    if entry is None:
        return 1
    at, form = entry
    value: int = struct.unpack(form, read(at, struct.calcsize(form)))[0]
    return value if 1 <= value <= 8 else 1


def _tiff_orientation_entry(read: Read) -> tuple[int, str] | None:
    """Where a TIFF keeps its orientation and in which form, by the directory of its first picture; None if nowhere."""
    start = read(0, 16)
    if not is_tiff(start):
        return None
    order = "<" if start[:2] == b"II" else ">"
    big = start[2:4] in (b"+\0", b"\0+")
    length, value_at, first = (20, 12, 8) if big else (12, 8, 2)
    try:
        directory: int = (
            struct.unpack_from(f"{order}Q", start, 8)[0] if big else struct.unpack_from(f"{order}I", start, 4)[0]
        )
        (count,) = struct.unpack(f"{order}{'Q' if big else 'H'}", read(directory, first))
        entries = read(directory + first, min(count, 4096) * length)
        for at in range(0, len(entries) - value_at - 3, length):
            tag, kind = struct.unpack_from(f"{order}HH", entries, at)
            if tag == ORIENTATION_TAG:
                form = {3: f"{order}H", 4: f"{order}I"}.get(kind)
                return (directory + first + at + value_at, form) if form else None
    except (OSError, ValueError, struct.error, OverflowError):
        pass
    return None


def _png_exif(file: BinaryIO) -> bytes | None:
    """The EXIF of a PNG: in a chunk of its own, else in a text, where ImageMagick keeps it."""
    texts = []
    for name, at, length in _chunks(file, len(PNG_SIGNATURE), "png"):
        if name == b"eXIf" or name in TEXT_CHUNKS:
            file.seek(at)
            body = file.read(length)
            if name == b"eXIf":
                return body
            texts.append(raw_profile(name, body))
    return next((exif for exif in texts if exif is not None), None)


def _webp_exif(file: BinaryIO) -> bytes | None:
    for name, at, length in _chunks(file, 12, "riff"):
        if name == b"EXIF":
            file.seek(at)
            return file.read(length)
    return None


def _chunks(file: BinaryIO, at: int, layout: str) -> Iterator[tuple[bytes, int, int]]:
    """Name of each chunk of a PNG (`png`) or RIFF (`riff`) file, and where its body begins and how long it is."""
    end = file.seek(0, os.SEEK_END)
    while at + 8 <= end:
        file.seek(at)
        head = file.read(8)
        if layout == "png":
            length, name = int.from_bytes(head[:4], "big"), head[4:]
            following = at + 12 + length
        else:
            name, length = head[:4], int.from_bytes(head[4:], "little")
            following = at + 8 + length + length % 2
        yield name, at + 8, length
        at = following


def picture_orientation(image: Image.Image) -> int:
    """EXIF orientation of a Pillow picture, 1 where there is none or it makes no sense."""
    value = image.getexif().get(ORIENTATION_TAG, 1)
    return value if isinstance(value, int) and 1 <= value <= 8 else 1
