"""Pictures: detections on an image, truth beside predictions, training curves, datasets."""

from tood.drawing import class_colour, draw_boxes
from tood.plots.curves import training_curves
from tood.plots.dataset import dataset_picture
from tood.plots.detections import draw_detections
from tood.plots.sheet import SheetRow, contact_sheet
from tood.plots.write import encode_image, write_image

__all__ = [
    "SheetRow",
    "class_colour",
    "contact_sheet",
    "dataset_picture",
    "draw_boxes",
    "draw_detections",
    "encode_image",
    "training_curves",
    "write_image",
]
