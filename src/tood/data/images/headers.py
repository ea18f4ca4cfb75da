"""What the first bytes of a JPEG or PNG file say."""

from __future__ import annotations

import struct
from dataclasses import dataclass

# Start-of-frame markers of JPEG: C0..CF but Huffman tables (C4), extensions (C8) and arithmetic tables (CC).
JPEG_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"


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


def parse_header(data: bytes) -> ImageHeader | None:
    """Header of a JPEG or PNG from its first bytes; None for anything else, or where more bytes are needed."""
    if data.startswith(PNG_SIGNATURE) and data[12:16] == b"IHDR" and len(data) >= 26:
        width, height = struct.unpack(">II", data[16:24])
        return ImageHeader("png", width, height, {0: 1, 2: 3, 3: 3, 4: 2, 6: 4}.get(data[25], 3), data[24])
    if not data.startswith(b"\xff\xd8"):
        return None
    at = 2
    while at + 10 <= len(data):
        if data[at] != 0xFF:
            return None
        marker = data[at + 1]
        if marker == 0xFF:  # fill byte
            at += 1
        elif marker in JPEG_FRAMES:
            height, width = struct.unpack(">HH", data[at + 5 : at + 9])
            return ImageHeader("jpeg", width, height, data[at + 9]) if height else None
        elif marker == 0x01 or 0xD0 <= marker <= 0xD9:  # markers that stand alone
            at += 2
        else:
            at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    return None


def ends_well(end: bytes, header: ImageHeader) -> bool:
    """Whether a file's last 8 bytes are what its format wants: those of a truncated one, which OpenCV may decode half
    grey, are not.
    """
    if header.kind == "jpeg":
        return end[-2:] == b"\xff\xd9"
    return header.kind == "png" and end[:4] == b"IEND"
