"""PAA's head: ATSS's parallel one, whose boxes are judged by the IoU that they are expected to have."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tood.models.common.parallel_head import ParallelHead, ParallelHeadConfig, RegressionBranches, boxes_from_deltas


@dataclass(frozen=True)
class PAAHeadConfig(ParallelHeadConfig):
    """Shape of the head.

    Attributes:
        iou: whether the regression tower also predicts the IoU of its box with the object.
    """

    iou: bool = True


class PAAHead(ParallelHead):
    """Deltas of square anchors; the quality of a box is its IoU with the object."""

    def __init__(self, config: PAAHeadConfig, classes: int, inputs: int, strides: Sequence[int]) -> None:
        quality = "iou" if config.iou else None
        branches = RegressionBranches("deltas", 4, boxes_from_deltas, quality)
        super().__init__(config, classes, inputs, strides, branches)
        self.config = config
