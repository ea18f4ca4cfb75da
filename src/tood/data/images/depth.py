"""Pixels of more than 8 bits: how many of the bits are used, and how they become 8.

Cameras of 10, 12 and 14 bits write 16-bit files of which the highest bits stay 0: their high bytes are nearly black.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tood.data.images.decoded import DecodedImage

_CONTAINER = 16
# Fewer levels than this are worth telling, where the file has more.
_FEW_LEVELS = 32


def from_sixteen_bits(values: NDArray[np.integer], told: int | None = None) -> DecodedImage:
    """A picture of 16 bits a channel, of which its file may say how many are used.

    Args:
        values: [H, W, 3] or, of grey ones, [H, W].
        told: as for `significant_bits`.
    """
    bits = significant_bits(values, told)
    pixels = eight_bits(values, bits)
    levels = np.count_nonzero(np.bincount(pixels.ravel(), minlength=256))
    few = levels < _FEW_LEVELS and levels < len(np.unique(values))
    if pixels.ndim == 2:
        pixels = np.repeat(pixels[:, :, None], 3, axis=2)
    return DecodedImage(pixels, bits, levels=int(levels) if few else None)


def significant_bits(values: NDArray[np.integer], told: int | None = None) -> int:
    """How many bits the values of a 16-bit picture use: the fewest from 8 to 16, or as its file says.

    Args:
        values: of all pixels and channels, 0 to 65535.
        told: what the file says, None where it does not. Values beyond that are of all 16 bits (PNG wants few bits
            spread over the whole range), and so are smaller ones that show such a spread.
    """
    largest = int(values.max(initial=0))
    if told is None:
        return max(8, largest.bit_length())
    bits = max(told, 8)
    if bits >= _CONTAINER or largest >= 1 << bits or (largest and _is_spread(values, bits)):
        return _CONTAINER
    return bits


def bits_told(largest: object, stored: object) -> int | None:
    """How many of 16 bits a TIFF's tags say that it uses; None where they say nothing.

    Args:
        largest: its MaxSampleValue, of one or of all channels.
        stored: its BitsPerSample, of one or of all channels.
    """
    numbers = [max(value) if isinstance(value, tuple) else value for value in (largest, stored) if value]
    usable = [number for number in numbers if isinstance(number, int)]
    if len(usable) < len(numbers) or not usable:
        return None
    if largest:
        # 65535 is what a file says that nobody thought about.
        return usable[0].bit_length() if usable[0] < 0xFFFF else None
    return usable[0] if usable[0] < _CONTAINER else None


def eight_bits(values: NDArray[np.integer], bits: int) -> NDArray[np.uint8]:
    """The highest 8 of so many bits."""
    return (values >> (bits - 8)).astype(np.uint8)


def _is_spread(values: NDArray[np.integer], bits: int) -> bool:
    """Whether these are numbers of so many bits in the high places of 16, the low ones 0 or repeating them."""
    low = _CONTAINER - bits
    high = values >> low << low
    return bool((values == high).all() or (values == high | values >> bits).all())
