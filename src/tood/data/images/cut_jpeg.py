"""JPEG files of which a part is gone: how many of their rows are there, and the picture as far as it goes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tood.data.images.jpeg_scans import JpegScans, Scan
from tood.data.images.pillow import DECODE_ERRORS, picture_pixels, pillow_quiet
from tood.errors import ToodError

_END = b"\xff\xd9"
# A whole scan ends with its last block: without so many bytes, something is missing in it.
_TELLING_BYTES = 128


_Edit: TypeAlias = tuple[int, int]
"""A part of a file, from one byte to before another."""


@dataclass(frozen=True, eq=False)
class CutJpeg:
    """A JPEG that may lack something: [H, W, 3] uint8 RGB pixels, whose first `rows` rows are as they were saved."""

    pixels: NDArray[np.uint8]
    rows: int


def decode_cut_jpeg(data: bytes, scans: JpegScans, told: str, limit: int) -> CutJpeg | None:
    """What there is of a JPEG; None where it cannot be decoded, or not told how far it goes.

    How far it goes is found by decoding it twice, with nothing and with noise after the last byte of each scan: rows
    that the noise does not reach are there. This holds of progressive files too, whose last scan sharpens what earlier
    ones drew. Long runs of equal bytes fill holes, or are an even surface: then the scan ends with its last block.

    Args:
        data: the file.
        scans: what lies where in it.
        told: what to call it.
        limit: of pixels, as it is for other files.
    """

    def pixels(edits: Sequence[_Edit], noisy: bool = False) -> NDArray[np.uint8]:
        with Image.open(BytesIO(_edited(data, scans, edits, noisy))) as image:
            image.load()
            return picture_pixels(image, told).pixels

    def rows(plain: NDArray[np.uint8], edits: Sequence[_Edit]) -> int:
        return _rows_alike(plain, pixels(edits, True), scans.block)

    def goes_on(plain: NDArray[np.uint8]) -> bool:
        """Whether a run of equal bytes goes on after the last block of the only scan: not all that was saved."""
        (scan, *others) = scans.scans
        last = scan.end - _TELLING_BYTES
        if others or not scans.ended or scan.run is None or _run_end(data, scan) != scan.end or last < scan.begin:
            return False
        return rows(plain, [(last, scan.end)]) == len(plain)

    ends = [(scan.end, scan.end) for scan in scans.scans]
    damaged = any(scan.gap is not None for scan in scans.scans)
    try:
        with pillow_quiet(limit):
            plain = pixels(ends)
            there = rows(plain, ends)
            damaged = damaged or there < len(plain) or goes_on(plain)
            for end in [_run_end(data, scan) for scan in scans.scans if scan.run is not None]:
                damaged = damaged or rows(plain, [(end, end)]) < len(plain)
            if damaged:
                ends = [(_first_damage(scan), scan.end) for scan in scans.scans]
                plain = pixels(ends)
                there = rows(plain, ends)
    except (*DECODE_ERRORS, ToodError):
        return None
    told_whole = scans.complete or (scans.ended and not damaged and there == len(plain))
    return CutJpeg(plain, there) if told_whole else None


def _run_end(data: bytes, scan: Scan) -> int:
    """Where the bytes end in which a scan's run of equal bytes lies: at the next restart or the scan's end."""
    places = (data.find(bytes([0xFF, 0xD0 + number]), scan.run, scan.end) for number in range(8))
    return min((place for place in places if place >= 0), default=scan.end)


def _first_damage(scan: Scan) -> int:
    return min(place for place in (scan.gap, scan.run, scan.end) if place is not None)


def _edited(data: bytes, scans: JpegScans, edits: Sequence[_Edit], noisy: bool) -> bytes:
    """The file without these parts of it, noise in the place of each if asked for."""
    noise = np.random.default_rng(0).integers(0, 255, 4096, dtype=np.uint8).tobytes()
    scan_ends = {scan.end for scan in scans.scans}
    parts, at = [], 0
    for begin, end in edits:
        parts.append(data[at:begin].rstrip(b"\xff"))
        if noisy:
            # Where the bytes end at a restart, what comes before its marker is passed over.
            start = max((scan.begin for scan in scans.scans if scan.begin <= begin), default=begin)
            restarts = sum(data.count(bytes([0xFF, 0xD0 + number]), start, begin) for number in range(8))
            again = bytes([0xFF, 0xD0 + restarts % 8]) + noise if end in scan_ends else b""
            parts += [noise, again]
        at = end
    return b"".join([*parts, data[at : scans.scans[-1].end].rstrip(b"\xff"), _END])


def _rows_alike(pixels: NDArray[np.uint8], other: NDArray[np.uint8], block: int) -> int:
    """How many rows are the same in two pictures, to the block; all of them where nothing differs."""
    differing = np.flatnonzero((pixels != other).any(axis=(1, 2)))
    if not len(differing):
        return len(pixels)
    # A row of blocks is there or not; the row above it may show a little of its colours.
    return (int(differing[0]) + 2) // block * block
