"""Adaptively spatial feature fusion (ASFF, Liu et al. 2019): every level a weighted mean of all three.

Levels come to a common size by convolutions, or in the light form ("sim", YOLOX-PAI) by slices, means and maxima that
have no weights.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tood.models.common.yolo_blocks import space_to_depth, yolo_conv

LEVELS = 3


class ASFF(nn.Module):
    """One level made of all three.

    Args:
        channels: of the three maps, fine to coarse, each with twice as many as the one before it.
        level: 0 for the finest.
        hidden: channels of each map that the weights are computed from.
        light: whether maps come to the level's size without weights.
    """

    def __init__(self, channels: Sequence[int], level: int, hidden: int, light: bool) -> None:
        super().__init__()
        self.level, self.light = level, light
        width = channels[level]
        # Coarse to fine here and below, as published.
        self.resizing = nn.ModuleList(
            nn.Identity() if light or source == level else _resizing(channels[source], width, source > level)
            for source in reversed(range(LEVELS))
        )
        self.weighting = nn.ModuleList(yolo_conv(width, hidden, 1) for _ in range(LEVELS))
        self.joining = yolo_conv(LEVELS * hidden, LEVELS, 1)
        self.expansion = yolo_conv(width, width, 3)

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """Maps [B, C, h, w], fine to coarse, each half as large as the last -> [B, width, h, w] of the level."""
        levels = [self._resized(features, source) for source, features in reversed(list(enumerate(maps)))]
        hidden = [layer(features) for layer, features in zip(self.weighting, levels, strict=True)]
        weights = self.joining(torch.cat(hidden, dim=1)).softmax(dim=1)  # [B, 3, h, w]
        mean = levels[0] * weights[:, :1]
        for number in range(1, LEVELS):
            mean = mean + levels[number] * weights[:, number : number + 1]
        return self.expansion(mean)  # type: ignore[no-any-return]

    def _resized(self, features: Tensor, source: int) -> Tensor:
        """A map in the level's size and channels."""
        resize = self.resizing[LEVELS - 1 - source]
        octaves = source - self.level
        if octaves >= 0:
            if self.light:
                for _ in range(octaves):
                    features = _pair_means(features)
            else:
                features = resize(features)
            return F.interpolate(features, scale_factor=float(2**octaves), mode="nearest") if octaves else features
        if self.light:
            slices = space_to_depth(features)
            return _pair_means(slices) if octaves == -1 else _halved(slices)
        return resize(features if octaves == -1 else _halved(features))  # type: ignore[no-any-return]


def _resizing(inputs: int, outputs: int, coarser: bool) -> nn.Module:
    return yolo_conv(inputs, outputs, 1) if coarser else yolo_conv(inputs, outputs, 3, 2)


def _pair_means(maps: Tensor) -> Tensor:
    """Means of neighbouring channels: [B, 2 * C, H, W] -> [B, C, H, W]."""
    return (maps[:, ::2] + maps[:, 1::2]) / 2


def _halved(maps: Tensor) -> Tensor:
    """The largest values within 3x3 cells around every second one: [B, C, H, W] -> [B, C, H / 2, W / 2]."""
    return F.max_pool2d(maps, 3, stride=2, padding=1)
