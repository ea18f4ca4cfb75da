"""The efficient task-aligned head (ET-head, Xu et al. 2022): channel attention on each task's copy of a level."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from tood.boxes import decode_distances
from tood.models.common.csp import conv_norm_silu, spatial_average
from tood.models.common.distribution import expected_bins, require_bins, side_distributions
from tood.models.common.fused_parts import with_fused_parts
from tood.models.common.priors import grid_priors
from tood.models.common.sizes import MOST_ANCHOR_SCALE, require_factor
from tood.ops import known
from tood.structures import DensePredictions

# Class scores start at a probability of 0.01, boxes at distributions that prefer no bin.
_CLASS_BIAS, _BOX_BIAS, _ATTENTION_STD = -4.595, 1.0, 0.001


@dataclass(frozen=True)
class ETHeadConfig:
    """Shape of the head; the defaults are the published ones.

    Attributes:
        bins: values, from 0 up, that a side's distance in strides is a distribution over.
        anchor_scale: side of the square anchors, in strides, by which ATSS assigns in the first epochs.
    """

    bins: int = 17
    anchor_scale: float = 5.0

    def __post_init__(self) -> None:
        require_bins(self.bins)
        require_factor("model.head.anchor_scale", self.anchor_scale, MOST_ANCHOR_SCALE)


class TaskAttention(nn.Module):
    """A task's features of a level: its channels weighed by all channels' averages, then a 1x1 convolution."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.fc = nn.Conv2d(width, width, 1)
        self.conv = conv_norm_silu(width, width, 1)

    def forward(self, features: Tensor, average: Tensor) -> Tensor:
        """[B, width, h, w] and their averages [B, width, 1, 1] -> [B, width, h, w]."""
        weighed: Tensor = self.conv(features * self.fc(average).sigmoid())
        return weighed


class ETHead(nn.Module):
    """Dense predictions from the neck's levels, each of which has weights of its own."""

    def __init__(self, config: ETHeadConfig, classes: int, inputs: Sequence[int], strides: Sequence[int]) -> None:
        super().__init__()
        self.config = config
        self.strides = tuple(strides)
        self.classification = nn.ModuleList(TaskAttention(width) for width in inputs)
        self.regression = nn.ModuleList(TaskAttention(width) for width in inputs)
        self.classifiers = nn.ModuleList(nn.Conv2d(width, classes, 3, padding=1) for width in inputs)
        self.regressors = nn.ModuleList(nn.Conv2d(width, 4 * config.bins, 3, padding=1) for width in inputs)
        # As the published head has it among its parameters, which nothing trains; boxes are of the bins themselves.
        bins = torch.arange(float(config.bins)).view(1, config.bins, 1, 1)
        self.projection = nn.Parameter(bins, requires_grad=False)
        self._initialise()

    def forward(self, maps: Sequence[Tensor]) -> DensePredictions:
        """One map [B, C, h, w] a level -> N = sum of h * w predictions; all fp32, scores and distributions logits."""
        scores, distributions = [], []
        parts = (self.classification, self.regression, self.classifiers, self.regressors)
        for features, for_class, for_box, classifier, regressor in zip(maps, *parts, strict=True):
            average = spatial_average(features)
            scores.append(classifier(for_class(features, average) + features).float().flatten(2))  # [B, C, hw]
            # Coordinates need all of fp32's bits.
            sides_of_cells = regressor(for_box(features, average)).float().flatten(2).transpose(1, 2)
            distributions.append(side_distributions(sides_of_cells))  # [B, hw, 4, R]
        priors = grid_priors(maps, self.strides, self.config.anchor_scale, offset=0.5)
        sides = torch.cat(distributions, 1)  # [B, N, 4, R]
        return DensePredictions(
            scores=torch.cat(scores, 2).transpose(1, 2),  # [B, N, C]
            boxes=decode_distances(priors.centres, expected_bins(sides) * priors.strides[:, None]),  # [B, N, 4]
            priors=priors,
            logits=True,
            distributions=sides,
        )

    def fuse(self, dtype: torch.dtype) -> nn.Module:
        """The same as fewer operations, to predict with; raises `CannotFuse` where a part is of another kind."""
        bare = copy.copy(known(self, ETHead))
        bare._parameters = {}  # what predicts needs no bins
        return with_fused_parts(bare, (ETHead, TaskAttention), dtype)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:
        # Checkpoints of runs from before it was kept lack it.
        state_dict.setdefault(f"{prefix}projection", self.projection.detach())
        super()._load_from_state_dict(state_dict, prefix, *rest)

    def _initialise(self) -> None:
        for tasks in (self.classification, self.regression):
            for task in tasks:
                assert isinstance(task, TaskAttention)
                nn.init.kaiming_normal_(task.conv.conv.weight, mode="fan_in", nonlinearity="relu")
                nn.init.normal_(task.fc.weight, std=_ATTENTION_STD)
                assert task.fc.bias is not None
                nn.init.zeros_(task.fc.bias)
        for layers, bias in ((self.classifiers, _CLASS_BIAS), (self.regressors, _BOX_BIAS)):
            for layer in layers:
                assert isinstance(layer, nn.Conv2d)
                assert layer.bias is not None
                nn.init.zeros_(layer.weight)
                nn.init.constant_(layer.bias, bias)
