"""The 1,797 scans of handwritten digits, divided by writer."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.resources import files
from typing import Literal, cast, get_args

import numpy as np
from numpy.typing import NDArray

Split = Literal["train", "val", "test"]
SPLITS: tuple[Split, ...] = get_args(Split)

# First digit and one past the last: whole forms of single writers, see ATTRIBUTION.md.
_DIGITS_OF: dict[Split, tuple[int, int]] = {"train": (0, 1157), "val": (1157, 1287), "test": (1287, 1797)}


@dataclass(frozen=True, eq=False)
class Scans:
    """Handwritten digits.

    Attributes:
        pixels: [n, 8, 8] uint8, ink from 0 to 16.
        labels: [n] int64, the digit 0..9.
    """

    pixels: NDArray[np.uint8]
    labels: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.labels)


def load_scans(split: Split) -> Scans:
    """The digits of a split: train, val and test come from different writers' forms."""
    with files("tood.data.digits").joinpath("scans.npz").open("rb") as file, np.load(file) as content:
        pixels, labels = content["scans"], content["labels"]
    start, stop = _DIGITS_OF[split]
    return Scans(cast("NDArray[np.uint8]", pixels[start:stop]), labels[start:stop].astype(np.int64))
