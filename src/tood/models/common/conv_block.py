"""A convolution, its BatchNorm and an activation: what most families after 2021 are made of."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tood.ops import Activation, InferenceConv2d, fused_conv, known
from tood.ops.activation import activated

NormMaker: TypeAlias = Callable[[int], nn.BatchNorm2d]
"""Makes the BatchNorm of so many channels, with a family's own epsilon and momentum."""


class NarrowProjection(nn.Conv2d):
    """A 1x1 convolution that takes its stride first.

    oneDNN's own (PyTorch 2.13) corrupts the heap in its backward pass at fewer than 16 channels, stride 2 and
    channels-last memory.
    """

    def forward(self, input: Tensor) -> Tensor:
        """[B, C, H, W] -> [B, D, ceil(H / stride), ceil(W / stride)]."""
        rows, columns = self.stride
        return F.conv2d(input[..., ::rows, ::columns], self.weight, self.bias, groups=self.groups)


class ConvNormAct(nn.Module):
    """A convolution that keeps the map's size but for its stride, BatchNorm, and the activation.

    Args:
        inputs, outputs: channels.
        kernel: side of the kernel, odd.
        stride, groups: of the convolution.
        activation: what follows.
        norm: makes the BatchNorm.
        bias: whether the convolution has a bias, which the norm then takes away again.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: int,
        stride: int = 1,
        groups: int = 1,
        activation: Activation = "silu",
        norm: NormMaker = nn.BatchNorm2d,
        bias: bool = False,
    ) -> None:
        super().__init__()
        convolution = NarrowProjection if kernel == 1 and stride > 1 and inputs < 16 else nn.Conv2d
        self.conv = convolution(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=bias)
        self.norm = norm(outputs)
        self.activation: Activation = activation

    def forward(self, x: Tensor) -> Tensor:
        """[B, inputs, H, W] -> [B, outputs, ceil(H / stride), ceil(W / stride)]."""
        return activated(self.norm(self.conv(x)), self.activation)

    def fuse(self, dtype: torch.dtype) -> InferenceConv2d:
        """The same as one operation, to predict with; raises `CannotFuse` where a layer is of another kind."""
        known(self, ConvNormAct)
        return fused_conv(known_conv(self.conv), self.norm, self.activation, dtype)


def known_conv(conv: nn.Module) -> nn.Conv2d:
    """A convolution as a `ConvNormAct` was built of; raises `CannotFuse` where it is none."""
    return known(conv, NarrowProjection if isinstance(conv, NarrowProjection) else nn.Conv2d)
