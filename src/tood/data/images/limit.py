"""The most pixels that an image may have: one rule and one setting for all kinds of files."""

from __future__ import annotations

import os

from tood.errors import PictureError, ToodError

MAX_PIXELS = 200_000_000
"""Larger images are refused before they are decoded (a decompression bomb costs gigabytes of memory)."""

MAX_PIXELS_VARIABLE = "TOOD_MAX_PIXELS"
"""The environment variable that sets another limit, in every command and in loading processes."""


def pixel_limit(given: int | None = None) -> int:
    """The most pixels that an image may have: as given, else as the environment says, else `MAX_PIXELS`.

    Raises:
        ToodError: if the environment's is no whole number above 0.
    """
    if given is not None:
        return given
    text = os.environ.get(MAX_PIXELS_VARIABLE, "")
    if not text:
        return MAX_PIXELS
    plain = text.replace("_", "").replace(",", "")
    if not (plain.isascii() and plain.isdigit()) or int(plain) < 1:
        raise ToodError(f"{MAX_PIXELS_VARIABLE} is {text!r}: expected a whole number of pixels above 0")
    return int(plain)


def too_large(told: str, limit: int, size: tuple[int, int] | None) -> PictureError:
    """What is said of an image of too many pixels; `size` is its width and height, where they are known."""
    if size is None:
        return PictureError(
            told,
            f"has more pixels than the limit of {limit:,}; make it smaller, or, if you trust it, set the "
            f"environment variable {MAX_PIXELS_VARIABLE} to more",
        )
    return PictureError(
        told,
        f"{size[0]}x{size[1]} pixels are more than the limit of {limit:,}; make it smaller, or, if you trust "
        f"it, set the environment variable {MAX_PIXELS_VARIABLE}={size[0] * size[1]}",
    )
