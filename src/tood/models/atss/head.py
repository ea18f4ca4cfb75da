"""ATSS's head: the parallel one with deltas of anchors and, beside them, how central their prior lies."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tood.models.common.parallel_head import ParallelHead, ParallelHeadConfig, RegressionBranches, boxes_from_deltas


@dataclass(frozen=True)
class ATSSHeadConfig(ParallelHeadConfig):
    """Shape of the head.

    Attributes:
        centerness: whether the regression tower also predicts how central its prior lies in the object; it is learnt
            under the ATSS criterion alone.
    """

    centerness: bool = True


class ATSSHead(ParallelHead):
    """Deltas of square anchors; the quality of a box is its prior's centerness."""

    def __init__(self, config: ATSSHeadConfig, classes: int, inputs: int, strides: Sequence[int]) -> None:
        quality = "centerness" if config.centerness else None
        branches = RegressionBranches("regressor", 4, boxes_from_deltas, quality)
        super().__init__(config, classes, inputs, strides, branches)
        self.config = config
