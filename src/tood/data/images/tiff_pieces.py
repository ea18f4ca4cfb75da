"""The tiles or strips that a TIFF is stored in."""

from __future__ import annotations

from typing import Any

# Bytes that a piece may have decoded: it is decoded whole, and a small file can say that it has many more.
_LARGEST_PIECE = 512 << 20
UNCOMPRESSED = 1
"""TIFF's number for it."""


def piece_size(page: Any) -> tuple[int, int]:
    """Height and width of the pieces of a page of tifffile's."""
    if page.is_tiled:
        return int(page.tilelength), int(page.tilewidth)
    return min(int(page.rowsperstrip), int(page.imagelength)), int(page.imagewidth)


def piece_bytes(page: Any, bands: int) -> int:
    """Bytes of so many bands of a piece, decoded."""
    height, width = piece_size(page)
    return height * width * bands * int(page.dtype.itemsize)


def piece_problem(page: Any, bands: int) -> str | None:
    """Why pieces of so many bands are not decoded, as the end of a sentence; None if they are."""
    size = piece_bytes(page, bands)
    if size > _LARGEST_PIECE and (page.is_tiled or not page.is_memmappable):
        return f"is compressed in pieces of {size / 2**20:,.0f} MiB: write it in tiles, such as by tiffcp -t"
    return None
