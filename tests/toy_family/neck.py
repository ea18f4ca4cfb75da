"""The coarse map carried to the fine one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor, nn


@dataclass(frozen=True)
class ToyNeckConfig:
    """Shape of the neck.

    Attributes:
        width: channels of both maps that it gives.
    """

    width: int = 16


class ToyNeck(nn.Module):
    """Both maps in the same width, the fine one knowing of the coarse one."""

    def __init__(self, config: ToyNeckConfig, channels: Sequence[int]) -> None:
        super().__init__()
        self.laterals = nn.ModuleList(nn.Conv2d(inputs, config.width, 1) for inputs in channels)

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """The backbone's maps, fine to coarse -> as many of `width` channels."""
        fine, coarse = (lateral(features) for lateral, features in zip(self.laterals, maps, strict=True))
        return [fine + F.interpolate(coarse, size=fine.shape[2:], mode="nearest"), coarse]
