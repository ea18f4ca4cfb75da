"""Layers that several families share."""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import Tensor, nn

from tood.models.common.deform_conv import DeformConv2d
from tood.models.common.norm_relu import norm_relu
from tood.models.common.operators import is_bare
from tood.models.common.shared_conv import shared_conv

# Class scores start at a probability of 0.01 (focal loss, section 4.1): -log((1 - 0.01) / 0.01).
PRIOR_BIAS = -math.log(99)


class ConvNormReLU(nn.Module):
    """3x3 convolution without bias, deformable where `deform_groups` > 0, then GroupNorm of `groups`, ReLU."""

    def __init__(self, inputs: int, outputs: int, groups: int, deform_groups: int = 0) -> None:
        super().__init__()
        self.conv: nn.Conv2d
        if deform_groups:
            self.conv = DeformConv2d(inputs, outputs, deform_groups=deform_groups)
        else:
            self.conv = nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)
        self.norm = nn.GroupNorm(groups, outputs)

    def forward(self, x: Tensor) -> Tensor:
        """[B, inputs, H, W] -> [B, outputs, H, W]."""
        return norm_relu(self.norm, self.conv(x))

    def on_levels(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """The same on each of several maps."""
        if not is_bare(self):
            return [self(features) for features in maps]
        return [norm_relu(self.norm, out) for out in shared_conv(self.conv, maps)]


def init_normal(module: nn.Module, std: float = 0.01, bias: float = 0.0) -> None:
    """Every convolution within `module`: weights normal with `std`, biases at `bias`; DCNv2's offsets stay at zero."""
    offsets = {layer.offset for layer in module.modules() if isinstance(layer, DeformConv2d)}
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d) and layer not in offsets:
            nn.init.normal_(layer.weight, std=std)
            if layer.bias is not None:
                nn.init.constant_(layer.bias, bias)
