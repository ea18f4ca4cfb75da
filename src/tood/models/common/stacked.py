"""Pieces of heads that only predict."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from tood.ops import CannotFuse, known


def stacked(one: nn.Module, other: nn.Module | None) -> nn.Conv2d:
    """Two convolutions on the same input as one; raises `CannotFuse` where they are of other kinds, or unlike."""
    one = known(one, nn.Conv2d)
    if other is None:
        return one
    other = known(other, nn.Conv2d)
    kernel = one.kernel_size[0]
    usual = ((kernel, kernel), (1, 1), (kernel // 2, kernel // 2), (1, 1), 1, "zeros")
    for conv in (one, other):
        own = (conv.kernel_size, conv.stride, conv.padding, conv.dilation, conv.groups, conv.padding_mode)
        if own != usual or conv.bias is None or conv.in_channels != one.in_channels:
            raise CannotFuse("convolutions that cannot be one")
    conv = nn.Conv2d(one.in_channels, one.out_channels + other.out_channels, kernel, padding=kernel // 2)
    conv.requires_grad_(False).to(one.weight.device)
    assert one.bias is not None
    assert other.bias is not None
    assert conv.bias is not None
    conv.weight.copy_(torch.cat([one.weight, other.weight]))
    conv.bias.copy_(torch.cat([one.bias, other.bias]))
    return conv


def cells_of(features: Tensor) -> Tensor:
    """[B, C, h, w] in channels-last memory -> [B, h * w, C], a view."""
    return features.permute(0, 2, 3, 1).flatten(1, 2)


def rows_of(maps: Tensor) -> Tensor:
    """[B, C, h, w] in channels-last memory -> [B, h * w, C] fp32, a copy."""
    return cells_of(maps).to(torch.float32, copy=True)
