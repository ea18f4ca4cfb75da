"""JPEG files that lack their last bytes: how many of their rows are there, and the picture as far as it goes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from io import BytesIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tood.data.images.headers import JPEG_FRAMES
from tood.data.images.pillow import DECODE_ERRORS, picture_pixels, pillow_quiet
from tood.errors import ToodError

_END = b"\xff\xd9"
_COEFFICIENTS = 64


@dataclass(frozen=True, eq=False)
class CutJpeg:
    """A JPEG without its end: [H, W, 3] uint8 RGB pixels, of which the first `rows` rows are as they were saved."""

    pixels: NDArray[np.uint8]
    rows: int


def decode_cut_jpeg(data: bytes, told: str, limit: int) -> CutJpeg | None:
    """What there is of a JPEG whose bytes end within its last scan; None of any other.

    How far it goes is found by decoding it twice, with nothing and with noise after its last byte: rows that the noise
    does not reach are there. This holds of progressive files too, whose last scan sharpens what earlier ones drew.

    Args:
        data: the file.
        told: what to call it.
        limit: of pixels, as it is for other files.
    """
    last = _last_scan(data)
    if last is None:
        return None
    there = data.rstrip(b"\xff")
    noise = np.random.default_rng(0).integers(0, 255, 4096, dtype=np.uint8).tobytes()
    # Where the bytes end at a restart, what comes before its marker is passed over.
    noise += last.restart + noise
    try:
        with pillow_quiet(limit):
            pixels, other = (_pixels(there + more + _END, told) for more in (b"", noise))
    except (*DECODE_ERRORS, ToodError):
        return None
    differing = np.flatnonzero((pixels != other).any(axis=(1, 2)))
    if not len(differing):
        return CutJpeg(pixels, len(pixels))
    # A row of blocks is there or not; the row above it may show a little of its colours.
    return CutJpeg(pixels, (int(differing[0]) + 2) // last.block * last.block)


@dataclass(frozen=True)
class _Scan:
    """The scan in which a file ends: rows of its blocks, and the restart marker that would come next."""

    block: int
    restart: bytes


def _pixels(data: bytes, told: str) -> NDArray[np.uint8]:
    with Image.open(BytesIO(data)) as image:
        image.load()
        return picture_pixels(image, told)[0]


def _last_scan(data: bytes) -> _Scan | None:
    """The last scan of a JPEG that ends within it; None if it ends elsewhere or is no such file.

    The last scan is the one after which every coefficient of every colour has all its bits.
    """
    # Bits that the scans so far have left out, by component.
    missing: dict[int, NDArray[np.int64]] = {}
    block, at = 0, 2
    while True:
        while at + 4 <= len(data) and data[at] == 0xFF and data[at + 1] in (0xFF, 0x01, *range(0xD0, 0xD8)):
            at += 1 if data[at + 1] == 0xFF else 2
        if at + 4 > len(data) or data[at] != 0xFF:
            return None
        marker, end = data[at + 1], at + 2 + int.from_bytes(data[at + 2 : at + 4], "big")
        body = data[at + 4 : end]
        if marker == 0xD9 or end > len(data) or (marker in JPEG_FRAMES and len(body) < 6):
            return None
        at = end
        if marker in JPEG_FRAMES:
            parts = [body[6 + 3 * number : 9 + 3 * number] for number in range(body[5])]
            if not parts or any(len(part) < 3 for part in parts):
                return None
            missing = {part[0]: np.full(_COEFFICIENTS, 16) for part in parts}
            block = 8 * max(part[1] & 15 for part in parts)
        elif marker == 0xDA:
            if not _scan(body, missing):
                return None
            at = _next_marker(data, end)
            if at >= len(data):
                if not block or any((left != 0).any() for left in missing.values()):
                    return None
                restarts = sum(data.count(bytes([0xFF, 0xD0 + number]), end) for number in range(8))
                return _Scan(block, bytes([0xFF, 0xD0 + restarts % 8]))


def _scan(body: bytes, missing: Mapping[int, NDArray[np.int64]]) -> bool:
    """Notes what a scan adds, by its header; False if that makes no sense."""
    count = body[0] if body else 0
    if len(body) < 1 + 2 * count + 3:
        return False
    first, last, bits = body[1 + 2 * count : 4 + 2 * count]
    for component in body[1 : 1 + 2 * count : 2]:
        if component not in missing:
            return False
        missing[component][first : last + 1] = bits & 15
    return True


def _next_marker(data: bytes, at: int) -> int:
    """Where the compressed bytes from `at` on end: at a marker other than a restart's, or at the file's end."""
    while True:
        at = data.find(b"\xff", at)
        if at < 0 or at + 1 >= len(data):
            return len(data)
        if data[at + 1] != 0 and not 0xD0 <= data[at + 1] <= 0xD7:
            return at
        at += 2
