"""Pictures into files, whole or not at all."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tood.errors import ToodError
from tood.whole_file import whole_file


def write_image(path: Path | str, image: NDArray[np.uint8]) -> None:
    """Writes [H, W, 3] uint8 RGB as the suffix says: .png without loss, .jpg at quality 92.

    Raises:
        ToodError: if the suffix is unknown or the file cannot be written.
    """
    path = Path(path)
    if path.suffix.lower() not in (".png", ".jpg", ".jpeg"):
        raise ToodError(f"{path} cannot be written: give it the suffix .png or .jpg")
    with whole_file(path) as temporary:
        temporary.write_bytes(encode_image(image, path.suffix.lower()))


def encode_image(image: NDArray[np.uint8], suffix: str) -> bytes:
    """The file content of [H, W, 3] uint8 RGB: .png without loss, .jpg and .jpeg at quality 92."""
    encoded = BytesIO()
    if suffix == ".png":
        Image.fromarray(image).save(encoded, "PNG")
    else:
        # Chroma at full resolution: thin coloured lines stay coloured.
        Image.fromarray(image).save(encoded, "JPEG", quality=92, subsampling=0)
    return encoded.getvalue()
