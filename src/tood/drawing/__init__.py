"""Boxes and text of any script on arrays of pixels; knows nothing of detectors, so that everything may use it."""

from tood.drawing.boxes import draw_boxes, draw_named_boxes, drawn_names
from tood.drawing.palette import PALETTE, RGB, class_colour
from tood.drawing.paths import draw_paths
from tood.drawing.text import draw_text, figure_letters, figure_text, names_to_draw, text_width

__all__ = [
    "PALETTE",
    "RGB",
    "class_colour",
    "draw_boxes",
    "draw_named_boxes",
    "draw_paths",
    "draw_text",
    "drawn_names",
    "figure_letters",
    "figure_text",
    "names_to_draw",
    "text_width",
]
