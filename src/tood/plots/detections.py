"""Detections on the image that they were found in."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tood.drawing import draw_named_boxes
from tood.structures import Detections


def draw_detections(
    image: NDArray[np.uint8], detections: Detections, *, show_scores: bool = True, show_names: bool = True
) -> NDArray[np.uint8]:
    """The image with each detection's box, name and score in per cent.

    A name for whose letters the system has no font is shown as the class's number, `class 3`, and told once.

    Args:
        image: [H, W, 3] uint8 RGB; it stays as it is.
        detections: boxes in pixels of this image, best first: the best lie on top.
        show_scores, show_names: what the captions say.

    Returns:
        [H, W, 3] uint8 RGB.
    """
    return draw_named_boxes(
        image,
        detections.boxes.cpu().numpy(),
        detections.scores.tolist(),
        detections.labels.tolist(),
        detections.class_names,
        show_scores=show_scores,
        show_names=show_names,
    )
