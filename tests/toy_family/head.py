"""The head: a convolution, then classes and distances of a box's sides."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from tood.boxes import decode_distances
from tood.models.common.layers import PRIOR_BIAS, init_normal
from tood.models.common.priors import grid_priors
from tood.structures import DensePredictions


@dataclass(frozen=True)
class ToyHeadConfig:
    """Shape of the head.

    Attributes:
        width: channels of its one hidden layer.
    """

    width: int = 16


class ToyHead(nn.Module):
    """Dense predictions from both maps; all weights are shared by them."""

    def __init__(self, config: ToyHeadConfig, classes: int, inputs: int, strides: Sequence[int]) -> None:
        super().__init__()
        self.strides = tuple(strides)
        self.hidden = nn.Sequential(nn.Conv2d(inputs, config.width, 3, padding=1), nn.ReLU())
        self.classifier = nn.Conv2d(config.width, classes, 3, padding=1)
        self.regressor = nn.Conv2d(config.width, 4, 3, padding=1)
        init_normal(self, std=0.01)
        assert self.classifier.bias is not None
        nn.init.constant_(self.classifier.bias, PRIOR_BIAS)

    def forward(self, maps: Sequence[Tensor]) -> DensePredictions:
        """One map [B, inputs, h, w] a level -> N = sum of h * w predictions; scores are logits."""
        scores, distances = [], []
        for features, stride in zip(maps, self.strides, strict=True):
            features = self.hidden(features)
            scores.append(self.classifier(features).float().flatten(2))  # [B, C, hw]
            # Coordinates need all of fp32's bits; a box starts at two strides from its place to each side.
            distances.append((self.regressor(features).float().exp() * (2 * stride)).flatten(2))  # [B, 4, hw]
        priors = grid_priors(maps, self.strides, anchor_scale=4)
        boxes = decode_distances(priors.centres, torch.cat(distances, 2).transpose(1, 2))  # [B, N, 4]
        return DensePredictions(torch.cat(scores, 2).transpose(1, 2), boxes, priors, logits=True)
