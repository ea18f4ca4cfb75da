"""Pixels of more than 8 bits: how many of the bits are used, and how they become 8.

Cameras of 10, 12 and 14 bits write 16-bit files of which the highest bits stay 0: their high bytes are nearly black.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

# What sensors have. Of a file that does not say, the least of them that holds its largest value.
_DEPTHS = (8, 10, 12, 14)
_CONTAINER = 16


def significant_bits(values: NDArray[np.integer], told: int | None = None) -> int:
    """How many bits the values of a 16-bit picture use: 8, 10, 12, 14 or 16, or as its file says.

    Args:
        values: of all pixels and channels, 0 to 65535.
        told: what the file says, None where it does not. Values beyond that are of all 16 bits (PNG wants few bits
            spread over the whole range), and so are smaller ones that show such a spread.
    """
    largest = int(values.max(initial=0))
    if told is None:
        return next((bits for bits in _DEPTHS if largest < 1 << bits), _CONTAINER)
    bits = max(told, 8)
    if bits >= _CONTAINER or largest >= 1 << bits or (largest and _is_spread(values, bits)):
        return _CONTAINER
    return bits


def eight_bits(values: NDArray[np.integer], bits: int) -> NDArray[np.uint8]:
    """The highest 8 of so many bits."""
    return (values >> (bits - 8)).astype(np.uint8)


def _is_spread(values: NDArray[np.integer], bits: int) -> bool:
    """Whether these are numbers of so many bits in the high places of 16, the low ones 0 or repeating them."""
    low = _CONTAINER - bits
    high = values >> low << low
    return bool((values == high).all() or (values == high | values >> bits).all())
