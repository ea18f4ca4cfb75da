"""What decoding gives."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class DecodedImage:
    """An image and what was found in decoding it.

    Attributes:
        pixels: [H, W, 3] uint8 RGB.
        bits: bits of a channel that a file of more than 8 uses; None of a file of 8.
        rows: of a JPEG of which a part is gone, the number of its stored rows that are there; None of a whole file.
        levels: of a file of more than 8 bits, the number of levels that are left of many more, where they are few.
    """

    pixels: NDArray[np.uint8]
    bits: int | None = None
    rows: int | None = None
    levels: int | None = None
