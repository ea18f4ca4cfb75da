"""Lines and outlines through places of an image, with a caption each."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from tood.drawing.boxes import letter_size, line_width
from tood.drawing.text import draw_text, text_width

_LINE, _RIM, _LETTERS = (255, 255, 255), (20, 20, 20), (20, 20, 20)


def draw_paths(
    image: NDArray[np.uint8],
    paths: Sequence[tuple[Sequence[tuple[float, float]], bool]],
    captions: Sequence[str],
) -> NDArray[np.uint8]:
    """The image with paths in white with a dark rim, and captions where they begin.

    Args:
        image: [H, W, 3] uint8 RGB; it stays as it is.
        paths: places (x, y) in pixels of the image, and whether the last goes back to the first.
        captions: one for each, empty for none.

    Returns:
        [H, W, 3] uint8 RGB.
    """
    height, width = image.shape[:2]
    picture = Image.fromarray(np.ascontiguousarray(image))
    draw = ImageDraw.Draw(picture)
    line, size = line_width(height, width), letter_size(height, width)
    for points, closed in paths:
        places = [*points, points[0]] if closed else list(points)
        for colour, wide in ((_RIM, 3 * line), (_LINE, line)):
            draw.line(places, fill=colour, width=wide, joint="curve")
    for (points, _), caption in zip(paths, captions, strict=True):
        if caption:
            pad = max(2, size // 5)
            wide, tall = math.ceil(text_width(caption, size)) + 2 * pad, size + 2 * pad
            left = max(0, min(round(points[0][0]), width - wide))
            top = max(0, min(round(points[0][1]), height - tall))
            draw.rectangle((left, top, left + wide - 1, top + tall - 1), fill=_LINE)
            draw_text(picture, (left + pad, top + tall / 2), caption, _LETTERS, size)
    pixels: NDArray[np.uint8] = np.array(picture)
    return pixels
