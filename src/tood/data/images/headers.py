"""What the first bytes of a JPEG or PNG file say."""

from __future__ import annotations

import struct
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import BinaryIO, TypeAlias

Read: TypeAlias = Callable[[int, int], bytes]
"""Bytes of a file from a place on, so many or, at its end, fewer."""

# Start-of-frame markers of JPEG: C0..CF but Huffman tables (C4), extensions (C8) and arithmetic tables (CC).
JPEG_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
JPEG_START = b"\xff\xd8"


@dataclass(frozen=True)
class ImageHeader:
    """What the first bytes of an image file say.

    Attributes:
        kind: `jpeg`, `png` or `other`.
        width, height: pixels as stored.
        channels: number of channels in the file.
        bits: of each channel in the file (of those other files that are not looked into: 8).
    """

    kind: str
    width: int
    height: int
    channels: int
    bits: int = 8


# As much as a disk gives at once, and what comes before the pixels of most files.
_BLOCK_BYTES = 4096


def parse_header(data: bytes) -> ImageHeader | None:
    """Header of a JPEG or PNG from its first bytes; None for anything else, or where more bytes are needed."""
    return read_header(bytes_reader(data))


def read_header(read: Read) -> ImageHeader | None:
    """The same, of which no more is read than is needed."""
    start = read(0, 26)
    if start.startswith(PNG_SIGNATURE) and start[12:16] == b"IHDR" and len(start) == 26:
        width, height = struct.unpack(">II", start[16:24])
        return ImageHeader("png", width, height, {0: 1, 2: 3, 3: 3, 4: 2, 6: 4}.get(start[25], 3), start[24])
    if not start.startswith(JPEG_START):
        return None
    for marker, at, _ in jpeg_segments(read):
        if marker in JPEG_FRAMES:
            frame = read(at, 6)
            height, width = struct.unpack(">HH", frame[1:5]) if len(frame) == 6 else (0, 0)
            return ImageHeader("jpeg", width, height, frame[5]) if height else None
    return None


def jpeg_segments(read: Read) -> Iterator[tuple[int, int, int]]:
    """Marker, start and end of the body of each segment of a JPEG that comes before its pixels."""
    at = 2
    while len(head := read(at, 4)) == 4 and head[0] == 0xFF and head[1] != 0xDA:
        marker = head[1]
        if marker == 0xFF:  # fill byte
            at += 1
        elif marker == 0x01 or 0xD0 <= marker <= 0xD9:  # markers that stand alone
            at += 2
        else:
            end = at + 2 + int.from_bytes(head[2:], "big")
            yield marker, at + 4, end
            at = end


def bytes_reader(data: bytes) -> Read:
    """Reads a file that is in memory."""
    return lambda at, count: data[at : at + count]


def file_reader(file: BinaryIO) -> Read:
    """Reads a file that is open without a buffer: what is asked for, and a block around it, not what lies between."""
    block, first = file.read(_BLOCK_BYTES), 0

    def read(at: int, count: int) -> bytes:
        nonlocal block, first
        if not first <= at <= at + count <= first + len(block) and not (first == 0 and len(block) < _BLOCK_BYTES):
            file.seek(at)
            block, first = file.read(max(count, _BLOCK_BYTES)), at
        return block[at - first : at - first + count]

    return read


def part_reader(read: Read, start: int, end: int = sys.maxsize) -> Read:
    """Reads a part of a file as if it were a file of its own."""
    return lambda at, count: read(start + at, max(0, min(count, end - start - at)))


def ends_well(end: bytes, header: ImageHeader) -> bool:
    """Whether a file's last 8 bytes are what its format wants: those of a truncated one, which OpenCV may decode half
    grey, are not.
    """
    if header.kind == "jpeg":
        return end[-2:] == b"\xff\xd9"
    return header.kind == "png" and end[:4] == b"IEND"
