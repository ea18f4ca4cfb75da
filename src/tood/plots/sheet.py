"""A contact sheet: truth beside predictions for several images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from tood.drawing import draw_text, text_width
from tood.plots.detections import draw_detections
from tood.plots.write import write_image
from tood.structures import Detections

_PAPER, _INK, _FAINT = (255, 255, 255), (30, 30, 30), (110, 110, 110)
_GAP = 16


@dataclass(frozen=True, eq=False)
class SheetRow:
    """One image of a sheet.

    Attributes:
        image: [H, W, 3] uint8 RGB.
        truth: what is there; scores are not shown.
        predictions: what was found, in pixels of the same image.
        title: such as the file's name.
    """

    image: NDArray[np.uint8]
    truth: Detections
    predictions: Detections
    title: str = ""


def contact_sheet(
    rows: Sequence[SheetRow],
    path: Path | str | None = None,
    *,
    title: str = "",
    columns: int = 2,
    side: int = 480,
    threshold: float = 0.3,
) -> NDArray[np.uint8]:
    """Pairs of truth (left) and predictions (right), each image enlarged or reduced to fit a square.

    Args:
        rows: the images.
        path: PNG to write; None writes none.
        title: headline.
        columns: pairs beside each other.
        side: of the square, in pixels of the sheet.
        threshold: least score of the predictions shown.

    Returns:
        [H, W, 3] uint8 RGB, the sheet.

    Raises:
        ValueError: if there is no image.
        ToodError: if the file cannot be written.
    """
    if not rows:
        raise ValueError("a contact sheet needs at least one image")
    pairs = [_pair(row, side, threshold) for row in rows]
    columns = min(columns, len(pairs))
    lines = [pairs[start : start + columns] for start in range(0, len(pairs), columns)]
    gap = 2 * _GAP
    head = 58 if title else 0
    tallest = [max(pair.height for pair in line) for line in lines]
    wide = columns * pairs[0].width + (columns + 1) * gap
    sheet = Image.new("RGB", (wide, head + sum(tallest) + (len(lines) + 1) * gap), _PAPER)
    if title:
        draw_text(sheet, (gap, gap + _middle(24)), title, _INK, 24)
    top = head + gap
    for line, height in zip(lines, tallest, strict=True):
        for i, pair in enumerate(line):
            sheet.paste(pair, (gap + i * (pair.width + gap), top))
        top += height + gap
    pixels: NDArray[np.uint8] = np.array(sheet)
    if path is not None:
        write_image(path, pixels)
    return pixels


def _pair(row: SheetRow, side: int, threshold: float) -> Image.Image:
    shown = row.predictions.above(threshold)
    height, width = row.image.shape[:2]
    scale = side / max(height, width)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    image = cv2.resize(row.image, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC)
    factors = torch.tensor([size[0] / width, size[1] / height] * 2)
    panels = [
        ("truth", row.truth, draw_detections(image, _scaled(row.truth, factors), show_scores=False)),
        ("predictions", shown, draw_detections(image, _scaled(shown, factors))),
    ]
    title_height, caption_height = (24 if row.title else 0), 24
    pair = Image.new("RGB", (2 * side + _GAP, title_height + caption_height + size[1]), _PAPER)
    if row.title:
        draw_text(pair, (0, _middle(15)), _shortened(row.title, pair.width), _INK, 15)
    for i, (word, objects, panel) in enumerate(panels):
        left = i * (side + _GAP)
        draw_text(pair, (left, title_height + _middle(14)), f"{word}: {len(objects)}", _FAINT, 14)
        pair.paste(Image.fromarray(panel), (left, title_height + caption_height))
    return pair


def _scaled(detections: Detections, factors: torch.Tensor) -> Detections:
    return replace(detections, boxes=detections.boxes.cpu() * factors)


def _shortened(text: str, width: int) -> str:
    """The end of a text that is too wide: of a path it says most."""
    while len(text) > 2 and text_width(text, 15) > width:
        text = "…" + text[2:]
    return text


def _middle(size: int) -> float:
    """Pixels from the top of a line of letters to its middle."""
    return 0.58 * size
