"""GFL's head: the parallel one with a distribution for each side of a box, and class scores that say how good it is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tood.models.common.distribution import require_bins
from tood.models.common.parallel_head import (
    ParallelHead,
    ParallelHeadConfig,
    RegressionBranches,
    boxes_from_distributions,
)


@dataclass(frozen=True)
class GFLHeadConfig(ParallelHeadConfig):
    """Shape of the head.

    Attributes:
        bins: places 0 .. bins - 1, in strides, that a side's distance is a distribution over.
    """

    bins: int = 17

    def __post_init__(self) -> None:
        super().__post_init__()
        require_bins(self.bins)


class GFLHead(ParallelHead):
    """Distances from a point to the sides of its box, each the mean of a distribution."""

    def __init__(self, config: GFLHeadConfig, classes: int, inputs: int, strides: Sequence[int]) -> None:
        branches = RegressionBranches("distribution", 4 * config.bins, boxes_from_distributions)
        super().__init__(config, classes, inputs, strides, branches)
        self.config = config
