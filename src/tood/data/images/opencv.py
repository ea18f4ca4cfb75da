"""Everyday pictures by OpenCV, which is fast, but prints its remarks: it gets only what it has none on."""

from __future__ import annotations

import threading

import cv2
import numpy as np
from numpy.typing import NDArray

REDUCTIONS = {
    1: cv2.IMREAD_COLOR,
    2: cv2.IMREAD_REDUCED_COLOR_2,
    4: cv2.IMREAD_REDUCED_COLOR_4,
    8: cv2.IMREAD_REDUCED_COLOR_8,
}
# Straight to RGB, where OpenCV (4.11 and newer) can: spares a pass over the pixels.
_RGB: int = getattr(cv2, "IMREAD_COLOR_RGB", 0)
TELLS_MISSING = bool(_RGB)
"""Whether a JPEG whose bytes end too early is told from others; OpenCV before 4.11 decodes it without a word."""

# Bytes that libjpeg wants to see after the last one of a picture.
_LOOKED_AHEAD = 16


class _Room(threading.local):
    """Memory of each thread that is used again: to get it anew from the system takes longer than the copy."""

    def __init__(self) -> None:
        self.bytes = np.empty(0, np.uint8)


_room = _Room()


def decode_everyday(data: bytes, reduction: int = 1) -> NDArray[np.uint8] | None:
    """[H, W, 3] uint8 RGB of a JPEG or a PNG, without alpha; None if OpenCV cannot decode it."""
    return _decode(np.frombuffer(data, np.uint8), reduction)


def decode_unended(data: bytes, end: int, reduction: int = 1) -> NDArray[np.uint8] | None:
    """The same of a JPEG of one scan, of which the bytes before `end` are taken; None too if they are too few."""
    if len(_room.bytes) < end + _LOOKED_AHEAD:
        _room.bytes = np.empty(end + end // 2 + _LOOKED_AHEAD, np.uint8)
    there = _room.bytes[: end + _LOOKED_AHEAD]
    there[:end] = np.frombuffer(data, np.uint8, end)
    there[end:] = 0
    return _decode(there, reduction)


def _decode(data: NDArray[np.uint8], reduction: int) -> NDArray[np.uint8] | None:
    try:
        # Spreads grey and palette to three channels, drops alpha.
        straight = _RGB if reduction == 1 else 0
        flags = (straight or REDUCTIONS[reduction]) | cv2.IMREAD_IGNORE_ORIENTATION
        pixels = cv2.imdecode(data, flags)
        if pixels is None or pixels.ndim != 3:
            return None
        rgb: NDArray[np.uint8] = pixels if straight else cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB)
    except (cv2.error, MemoryError):
        return None
    return rgb
