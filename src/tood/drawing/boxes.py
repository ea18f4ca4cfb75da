"""Boxes with their captions drawn on an image."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from tood.drawing.bidi import isolated
from tood.drawing.palette import RGB, class_colour, text_colour
from tood.drawing.text import draw_text, names_to_draw, text_width

# Beyond so many boxes captions would hide the image.
MAX_CAPTIONS = 200
# Pixels under which nobody can read them.
SMALLEST_LETTERS = 9


def draw_named_boxes(
    image: NDArray[np.uint8],
    boxes: NDArray[np.floating[Any]],
    scores: Sequence[float],
    labels: Sequence[int],
    class_names: Sequence[str],
    *,
    show_scores: bool = True,
    show_names: bool = True,
) -> NDArray[np.uint8]:
    """The image with boxes in the colours of their classes, captioned with name and score in per cent.

    A name for whose letters the system has no font is shown as the class's number, `class 3`, and told once.

    Args:
        image: [H, W, 3] uint8 RGB; it stays as it is.
        boxes: [K, 4] x1 y1 x2 y2 in pixels of the image, best first: the best lie on top.
        scores: one for each box, 0..1.
        labels: one for each box, index into `class_names`; one beyond them is shown as the number that it is.
        class_names: of all classes.
        show_scores, show_names: what the captions say.

    Returns:
        [H, W, 3] uint8 RGB.
    """
    drawn = drawn_names(class_names)
    names = [drawn[label] if label < len(drawn) else str(label) for label in labels]
    captions = [
        " ".join(([name] if show_names else []) + ([f"{100 * score:.0f}%"] if show_scores else []))
        for name, score in zip(names, scores, strict=True)
    ]
    return draw_boxes(image, boxes, [class_colour(label) for label in labels], captions)


def drawn_names(class_names: Sequence[str]) -> list[str]:
    """The classes' names as they stand in captions, whatever direction their script is read in."""
    return [isolated(name) for name in names_to_draw(tuple(class_names))]


def draw_boxes(
    image: NDArray[np.uint8],
    boxes: NDArray[np.floating[Any]],
    colours: Sequence[RGB],
    captions: Sequence[str] | None = None,
) -> NDArray[np.uint8]:
    """The image with boxes, and captions on chips of the box's colour.

    Lines and letters grow with the image. A chip takes a place at its box, inside the image, that no chip of an
    earlier box has; where there is none, or beyond 200 boxes, the box goes without.

    Args:
        image: [H, W, 3] uint8 RGB; it stays as it is.
        boxes: [K, 4] x1 y1 x2 y2 in pixels of the image, the most important first.
        colours: one for each box.
        captions: one for each box, empty for none; of any script for which the system has a font (TOOD_FONTS may name
            more, files or folders), else with U+... for a letter without one.

    Returns:
        [H, W, 3] uint8 RGB.
    """
    height, width = image.shape[:2]
    picture = Image.fromarray(np.ascontiguousarray(image))
    draw = ImageDraw.Draw(picture)
    limit = np.array([width - 1, height - 1, width - 1, height - 1])
    corners = np.clip(np.nan_to_num(boxes.astype(np.float64)), 0, limit).round().astype(int)
    corners[:, 2:] = np.maximum(corners[:, 2:], corners[:, :2])
    line = line_width(height, width)
    for box, colour in reversed(list(zip(corners.tolist(), colours, strict=True))):
        _outline(draw, box, colour, line)
    if captions is not None and len(captions) <= MAX_CAPTIONS:
        _draw_captions(picture, corners.tolist(), colours, captions)
    pixels: NDArray[np.uint8] = np.array(picture)
    return pixels


def line_width(height: int, width: int) -> int:
    """Pixels of a box's line: 1 in a thumbnail, 2 in a screen picture, more in a large photograph."""
    return max(1, round(math.sqrt(height * width) / 260))


def letter_size(height: int, width: int) -> int:
    """Pixels of a caption's letters: never too small to read, never larger than a headline."""
    return min(64, max(SMALLEST_LETTERS, round(math.sqrt(height * width) / 45)))


def _outline(draw: ImageDraw.ImageDraw, box: list[int], colour: RGB, line: int) -> None:
    x1, y1, x2, y2 = box
    if line > 1:
        # A dark rim keeps the colour apart from a picture of the same colour.
        rim = max(1, line // 3)
        draw.rectangle((x1 - rim, y1 - rim, x2 + rim, y2 + rim), outline=(20, 20, 20), width=line + 2 * rim)
    draw.rectangle((x1, y1, x2, y2), outline=colour, width=line)


def _draw_captions(
    picture: Image.Image, corners: list[list[int]], colours: Sequence[RGB], captions: Sequence[str]
) -> None:
    width, height = picture.size
    draw = ImageDraw.Draw(picture)
    usual = letter_size(height, width)
    chips = np.zeros((0, 4))
    for (x1, y1, x2, y2), colour, caption in zip(corners, colours, captions, strict=True):
        if not caption:
            continue
        # A small object gets small letters: its chip should not hide its neighbours.
        size = usual if max(x2 - x1, y2 - y1) > 4 * usual else max(SMALLEST_LETTERS, round(0.8 * usual))
        pad = max(2, size // 5)
        tall, wide = size + 2 * pad, math.ceil(text_width(caption, size)) + 2 * pad
        # Above the box, inside at the top, below, inside at the bottom, beside; each at the left, then at the right.
        tops = (y1 - tall, y1, y2 + 1, y2 - tall)
        places = [(left, top) for top in tops for left in (x1, x2 - wide)] + [(x2 + 1, y1), (x1 - wide, y1)]
        inside = [
            (max(0, min(left, width - wide)), top) for left, top in places if top >= 0 and top + tall <= height
        ] or [(max(0, min(x1, width - wide)), 0)]
        free = [place for place in inside if not _overlaps(chips, (*place, place[0] + wide, place[1] + tall))]
        if not free:
            continue
        left, top = free[0]
        chips = np.vstack([chips, [left, top, left + wide, top + tall]])
        draw.rectangle((left, top, left + wide - 1, top + tall - 1), fill=colour)
        draw_text(picture, (left + pad, top + tall / 2), caption, text_colour(colour), size)


def _overlaps(chips: NDArray[np.float64], chip: tuple[int, int, int, int]) -> bool:
    x1, y1, x2, y2 = chip
    apart = (chips[:, 0] >= x2) | (chips[:, 2] <= x1) | (chips[:, 1] >= y2) | (chips[:, 3] <= y1)
    return bool((~apart).any())
