"""Whole TIFFs by tifffile: those that Pillow does not know, or that neither it nor OpenCV surely reads rightly."""

from __future__ import annotations

from dataclasses import replace
from io import BytesIO
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from tood.data.images.cut_tiff import ends_too_early
from tood.data.images.decoded import DecodedImage
from tood.data.images.depth import bits_told, from_sixteen_bits
from tood.data.images.headers import ImageHeader
from tood.data.images.tiff_colours import as_rgb, colour_problem, samples_problem
from tood.data.images.tiff_pieces import UNCOMPRESSED, piece_problem
from tood.errors import PictureError, first_line

_MAX_SAMPLE_VALUE = 281
LIBRARY = "pip install 'tood[big]'"
"""What brings tifffile and the packages that it decodes with."""


def tiff_header(file: BinaryIO, told: str) -> ImageHeader | None:
    """Header of a TIFF that Pillow does not know; None where tifffile does not know it either.

    Raises:
        PictureError: where tifffile is not installed.
    """
    try:
        import tifffile
    except ImportError:
        raise PictureError(
            told, f"is a TIFF that Pillow does not know, or a broken one; tifffile reads more kinds: {LIBRARY}"
        ) from None
    file.seek(0)
    try:
        page = tifffile.TiffFile(file).pages.first
        samples, bits = int(page.samplesperpixel), 8 * page.dtype.itemsize
        return ImageHeader("other", int(page.imagewidth), int(page.imagelength), samples, bits)
    except Exception:  # whatever a broken file leads it to
        return None


def decode_whole_tiff(data: bytes, told: str) -> DecodedImage:
    """The first picture of a TIFF, as stored. Beside the pixels no more is held than the pieces being decoded.

    Raises:
        PictureError: of a kind that is no photograph, broken, or tifffile is not installed.
    """
    try:
        import tifffile
    except ImportError:
        raise PictureError(told, f"its kind of TIFF is read by tifffile alone: {LIBRARY}") from None
    try:
        page = tifffile.TiffFile(BytesIO(data)).pages.first
        bands = 1 if page.planarconfig == 2 else int(page.samplesperpixel)  # of a piece
        problem = samples_problem(page) or colour_problem(page) or piece_problem(page, bands)
        if problem is not None:
            raise PictureError(told, problem)
        _require_pieces(page, len(data), told)
        values = _values(page)
    except PictureError:
        raise
    except Exception as error:  # whatever a broken file leads it to
        said = first_line(error)
        if "imagecodecs" in said:
            raise PictureError(told, f"its compression needs a package that is not installed: {LIBRARY}") from error
        raise PictureError(told, f"the image is truncated or broken ({said[:200]})") from error
    if values.dtype == np.uint8:
        return DecodedImage(as_rgb(values, page))
    largest = page.tags.get(_MAX_SAMPLE_VALUE)
    decoded = from_sixteen_bits(values, bits_told(None if largest is None else largest.value, page.bitspersample))
    return replace(decoded, pixels=as_rgb(decoded.pixels, page))


def _require_pieces(page: Any, size: int, told: str) -> None:
    """Half a JPEG, or half of the planes, is decoded without a word.

    Writers of uncompressed files may say more of the last piece than its rows have: of that decoding tells.
    """
    for start, count in zip(page.dataoffsets, page.databytecounts, strict=True):
        if count and (start >= size or (start + count > size and page.compression != UNCOMPRESSED)):
            raise ends_too_early(told, size, start + count)


def _values(page: Any) -> NDArray[Any]:
    """[H, W, 3] as stored, of fewer than 3 bands [H, W, 1]; of more bands the first 3."""
    kept = 3 if page.samplesperpixel >= 3 else 1
    result = np.zeros((int(page.imagelength), int(page.imagewidth), kept), page.dtype)
    for piece, (plane, depth, top, left, _), (_, height, width, _) in page.segments(maxworkers=1):
        if piece is None or depth or plane >= kept:  # left out of the file, or beyond what is wanted
            continue
        part = result[top : top + height, left : left + width, plane if page.planarconfig == 2 else slice(kept)]
        part[...] = piece[0, :height, :width, 0 if page.planarconfig == 2 else slice(kept)][
            : part.shape[0], : part.shape[1]
        ]
    return result
