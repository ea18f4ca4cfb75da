"""ATSS's head: the parallel one with deltas of anchors and, beside them, how central their prior lies."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tood.models.common.parallel_head import ParallelHead, RegressionBranches, boxes_from_deltas


@dataclass(frozen=True)
class ATSSHeadConfig:
    """Shape of the head; the defaults are the published ones.

    Attributes:
        width: channels of every tower layer.
        tower_layers: 3x3 convolutions of each of the two towers.
        norm_groups: groups of every GroupNorm.
        anchor_scale: side of the square anchors, in strides.
        centerness: whether the regression tower also predicts how central its prior lies in the object; it is learnt
            under the ATSS criterion alone.
    """

    width: int = 256
    tower_layers: int = 4
    norm_groups: int = 32
    anchor_scale: float = 8.0
    centerness: bool = True


class ATSSHead(ParallelHead):
    """Deltas of square anchors; the quality of a box is its prior's centerness."""

    def __init__(self, config: ATSSHeadConfig, classes: int, inputs: int, strides: Sequence[int]) -> None:
        quality = "centerness" if config.centerness else None
        branches = RegressionBranches("regressor", 4, boxes_from_deltas, quality)
        super().__init__(config, classes, inputs, strides, branches)
        self.config = config
