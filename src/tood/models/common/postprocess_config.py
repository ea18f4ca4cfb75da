"""How a network's dense predictions are meant to become detections."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class PostprocessConfig:
    """Selection before and after non-maximum suppression.

    Attributes:
        score_threshold: (prior, class) pairs of a higher probability are kept.
        per_level: at most so many of the best pairs on each level.
        iou_threshold: class-wise suppression above this overlap.
        max_detections: at most so many of the best in an image.
        clip: whether boxes end at the image's border; otherwise they may cross it by a few pixels.
    """

    score_threshold: float = 0.05
    per_level: int = 1000
    iou_threshold: float = 0.6
    max_detections: int = 100
    clip: bool = False
