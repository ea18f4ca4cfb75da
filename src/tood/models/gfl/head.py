"""GFL's head: the parallel one with a distribution for each side of a box, and class scores that say how good it is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tood.models.common.distribution import require_bins
from tood.models.common.parallel_head import ParallelHead, RegressionBranches, boxes_from_distributions


@dataclass(frozen=True)
class GFLHeadConfig:
    """Shape of the head; the defaults are the published ones.

    Attributes:
        width: channels of every tower layer.
        tower_layers: 3x3 convolutions of each of the two towers.
        norm_groups: groups of every GroupNorm.
        anchor_scale: side of the square anchors that positives are found by, in strides.
        bins: places 0 .. bins - 1, in strides, that a side's distance is a distribution over.
    """

    width: int = 256
    tower_layers: int = 4
    norm_groups: int = 32
    anchor_scale: float = 8.0
    bins: int = 17

    def __post_init__(self) -> None:
        require_bins(self.bins)


class GFLHead(ParallelHead):
    """Distances from a point to the sides of its box, each the mean of a distribution."""

    def __init__(self, config: GFLHeadConfig, classes: int, inputs: int, strides: Sequence[int]) -> None:
        branches = RegressionBranches("distribution", 4 * config.bins, boxes_from_distributions)
        super().__init__(config, classes, inputs, strides, branches)
        self.config = config
