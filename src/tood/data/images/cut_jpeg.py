"""JPEG files of which a part is gone: how many of their rows are there, and the picture as far as it goes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tood.data.images.jpeg_scans import JpegScans, Scan
from tood.data.images.pillow import DECODE_ERRORS, picture_pixels, pillow_quiet
from tood.errors import ToodError

_END = b"\xff\xd9"
# A whole scan ends with its last block: so many bytes before, something is missing in it.
_TELLING_BYTES = 8


@dataclass(frozen=True, eq=False)
class CutJpeg:
    """A JPEG that may lack something: [H, W, 3] uint8 RGB pixels, whose first `rows` rows are as they were saved."""

    pixels: NDArray[np.uint8]
    rows: int


def decode_cut_jpeg(data: bytes, scans: JpegScans, told: str, limit: int) -> CutJpeg | None:
    """What there is of a JPEG; None where it cannot be decoded, or not told how far it goes.

    How far it goes is found by decoding it twice, with nothing and with noise after the last byte of each scan: rows
    that the noise does not reach are there. This holds of progressive files too, whose last scan sharpens what earlier
    ones drew. Long runs of equal bytes fill holes, or are an even surface: then the scan ends with its last block, and
    noise in the place of its last bytes shows.

    Args:
        data: the file.
        scans: what lies where in it.
        told: what to call it.
        limit: of pixels, as it is for other files.
    """
    noise = np.random.default_rng(0).integers(0, 255, 4096, dtype=np.uint8).tobytes()

    def pixels(ends: Sequence[int], noisy: bool) -> NDArray[np.uint8]:
        with Image.open(BytesIO(_with_ends(data, scans.scans, ends, noise if noisy else b""))) as image:
            image.load()
            return picture_pixels(image, told)[0]

    ends = [scan.end for scan in scans.scans]
    try:
        with pillow_quiet(limit):
            plain = pixels(ends, False)
            rows = _rows_alike(plain, pixels(ends, True), scans.block)
            for number, scan in enumerate(scans.scans):
                if scan.run is None:
                    continue
                earlier = [end - _TELLING_BYTES * (at == number) for at, end in enumerate(ends)]
                if rows < len(plain) or _rows_alike(plain, pixels(earlier, True), scans.block) == len(plain):
                    ends = [scan.end if scan.run is None else scan.run for scan in scans.scans]
                    plain = pixels(ends, False)
                    rows = _rows_alike(plain, pixels(ends, True), scans.block)
                    break
    except (*DECODE_ERRORS, ToodError):
        return None
    return CutJpeg(plain, rows) if scans.complete or (scans.ended and rows == len(plain)) else None


def _with_ends(data: bytes, scans: Sequence[Scan], ends: Sequence[int], noise: bytes) -> bytes:
    """The file with other ends of its scans, and noise after each."""
    parts, at = [], 0
    for scan, end in zip(scans, ends, strict=True):
        there = data[at:end].rstrip(b"\xff")
        # Where the bytes end at a restart, what comes before its marker is passed over.
        restarts = sum(data.count(bytes([0xFF, 0xD0 + number]), scan.begin, end) for number in range(8))
        restart = bytes([0xFF, 0xD0 + restarts % 8])
        parts += [there, noise, restart if noise else b"", noise]
        at = scan.end
    return b"".join([*parts, _END])


def _rows_alike(pixels: NDArray[np.uint8], other: NDArray[np.uint8], block: int) -> int:
    """How many rows are the same in two pictures, to the block; all of them where nothing differs."""
    differing = np.flatnonzero((pixels != other).any(axis=(1, 2)))
    if not len(differing):
        return len(pixels)
    # A row of blocks is there or not; the row above it may show a little of its colours.
    return (int(differing[0]) + 2) // block * block
