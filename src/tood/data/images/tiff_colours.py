"""What the samples of a TIFF mean, and how they become RGB."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

# Tags of YCbCr, and what a file without them means: all of 0..255, by the weights of ITU-R BT.601 (TIFF 6.0,
# section 21).
_COEFFICIENTS, _REFERENCE = 529, 532
_BT601 = (0.299, 0.587, 0.114)
_FULL_RANGE = (0, 255, 128, 255, 128, 255)
# Compressions that are JPEG; JPEG 2000 whose samples are YCbCr whatever else the file says (Aperio's scanners).
_JPEG, _YCBCR_JPEG2000 = (6, 7, 34892, 33007), 33003
# Those that give the very samples that were stored.
_LOSSLESS = (1, 5, 8, 32773, 32946, 34925, 34926, 50000)


def samples_problem(page: Any) -> str | None:
    """Why the samples of a page of tifffile's are not read, as the end of a sentence; None if they are."""
    if page.dtype not in (np.uint8, np.uint16):
        return f"holds {page.dtype} values: convert it to 8 or 16 bits a channel"
    narrow = page.bitspersample < 8 * page.dtype.itemsize
    # 9 to 15 bits are as 16 of which the highest are 0; a palette's values are no brightness.
    if narrow and page.dtype == np.uint8 and page.photometric.name != "PALETTE":
        return f"holds {page.bitspersample} bits a channel: convert it to 8 or 16"
    return None


def colour_problem(page: Any) -> str | None:
    """Why a page of tifffile's is not read as RGB, as the end of a sentence; None if it is."""
    if page.photometric.name in ("SEPARATED", "CIELAB", "ICCLAB", "ITULAB", "CFA"):
        return f"is of the colour space {page.photometric.name}: convert it to RGB"
    if page.photometric.name == "PALETTE" and page.dtype != np.uint8:
        return "has a palette of more than 256 colours: convert it to RGB"
    if page.photometric.name == "YCBCR" and not _decodes_to_rgb(page):
        known = page.compression in (*_LOSSLESS, _YCBCR_JPEG2000) and page.dtype == np.uint8
        if page.is_subsampled or not known or not _is_usual(page):
            return "is of the colour space YCbCr, in a rare way: convert it to RGB"
    return None


def as_rgb(values: NDArray[np.uint8], page: Any) -> NDArray[np.uint8]:
    """[h, w, S] of 8 bits as [h, w, 3]: grey three times, of many bands the first three, transparency dropped."""
    kind = page.photometric.name
    if kind == "PALETTE" and page.colormap is not None:
        table: NDArray[np.uint8] = (np.asarray(page.colormap) >> 8).astype(np.uint8).T  # [256, 3]
        return np.ascontiguousarray(table[values[:, :, 0]])
    if values.shape[2] < 3:
        grey = values[:, :, :1]
        return np.repeat(255 - grey if kind == "MINISWHITE" else grey, 3, axis=2)
    if page.compression == _YCBCR_JPEG2000 or (kind == "YCBCR" and not _decodes_to_rgb(page)):
        rgb: NDArray[np.uint8] = cv2.cvtColor(np.ascontiguousarray(values[:, :, [0, 2, 1]]), cv2.COLOR_YCrCb2RGB)
        return rgb
    return np.ascontiguousarray(values[:, :, :3])


def _decodes_to_rgb(page: Any) -> bool:
    """Whether tifffile has the decoder of a page make RGB of YCbCr."""
    return page.compression in _JPEG and page.planarconfig == 1 and not page.extrasamples


def _is_usual(page: Any) -> bool:
    """Whether YCbCr has the weights and the range that a file has which tells neither."""
    return all(
        tag is None or np.allclose(_numbers(tag.value), usual, atol=0.001)
        for tag, usual in (
            (page.tags.get(_COEFFICIENTS), _BT601),
            (page.tags.get(_REFERENCE), _FULL_RANGE),
        )
    )


def _numbers(fractions: Any) -> NDArray[np.float64]:
    """Fractions as tifffile gives them: numerator, denominator, ..."""
    pairs = np.asarray(fractions, np.float64).reshape(-1, 2)
    return pairs[:, 0] / pairs[:, 1]
