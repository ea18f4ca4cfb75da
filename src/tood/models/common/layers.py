"""Layers that several families share."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tood.models.common.deform_conv import DeformConv2d, fused
from tood.ops import CannotFuse, group_norm_relu, known, may_stand_in, shared_conv

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
        return group_norm_relu(self.norm, self.conv(x))

    def fuse(self, dtype: torch.dtype) -> InferenceConvNormReLU:
        """The same with fewer copies, to predict with; raises `CannotFuse` where a part is of another kind."""
        return InferenceConvNormReLU(self, dtype)


def on_levels(layer: nn.Module, maps: Sequence[Tensor]) -> list[Tensor]:
    """A layer with the same weights on each of a pyramid's maps; that of a `ConvNormReLU` on all of them at once."""
    if isinstance(layer, ConvNormReLU) and may_stand_in(((layer, ConvNormReLU),), maps):
        return [group_norm_relu(layer.norm, out) for out in shared_conv(layer.conv, maps)]
    return [layer(features) for features in maps]


class InferenceConvNormReLU(nn.Module):
    """`ConvNormReLU` without gradient.

    Raises:
        CannotFuse: if the layer is of another kind.
    """

    def __init__(self, layer: nn.Module, dtype: torch.dtype) -> None:
        super().__init__()
        layer = known(layer, ConvNormReLU)
        self.conv = fused(layer.conv, None, False, dtype, sees_all_levels=True)
        self.norm = InferenceGroupNormReLU(layer.norm)

    def forward(self, x: Tensor) -> Tensor:
        """[B, inputs, H, W] -> [B, outputs, H, W]."""
        return self.norm(self.conv(x))  # type: ignore[no-any-return]


class InferenceGroupNormReLU(nn.Module):
    """GroupNorm, in fp32 inside, and ReLU.

    Raises:
        CannotFuse: if the norm is of another kind.
    """

    def __init__(self, norm: nn.Module) -> None:
        super().__init__()
        norm = known(norm, nn.GroupNorm)
        if not norm.affine:
            raise CannotFuse("a GroupNorm without weights")
        self.groups, self.eps = norm.num_groups, norm.eps
        self.weight, self.bias = norm.weight.detach().clone(), norm.bias.detach().clone()

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W] -> the same."""
        weight, bias = (self.weight, self.bias) if x.device.type == "cpu" else (self.weight.to(x), self.bias.to(x))
        return F.group_norm(x, self.groups, weight, bias, self.eps).relu_()


def init_normal(module: nn.Module, std: float = 0.01, bias: float = 0.0) -> None:
    """Every convolution within `module`: weights normal with `std`, biases at `bias`; DCNv2's offsets stay at zero."""
    offsets = {layer.offset for layer in module.modules() if isinstance(layer, DeformConv2d)}
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d) and layer not in offsets:
            nn.init.normal_(layer.weight, std=std)
            if layer.bias is not None:
                nn.init.constant_(layer.bias, bias)
