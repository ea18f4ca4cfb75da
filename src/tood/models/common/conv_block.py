"""A convolution, its BatchNorm and an activation: what most families after 2021 are made of."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tood.ops import InferenceConv2d, fused_conv, known

Activation: TypeAlias = Literal["none", "relu", "silu"]
"""What follows a norm."""

NormMaker: TypeAlias = Callable[[int], nn.BatchNorm2d]
"""Makes the BatchNorm of so many channels, with a family's own epsilon and momentum."""


class ConvNormAct(nn.Module):
    """A convolution without bias that keeps the map's size but for its stride, BatchNorm, and the activation.

    Args:
        inputs, outputs: channels.
        kernel: side of the kernel, odd.
        stride, groups: of the convolution.
        activation: what follows.
        norm: makes the BatchNorm.
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
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False)
        self.norm = norm(outputs)
        self.activation: Activation = activation

    def forward(self, x: Tensor) -> Tensor:
        """[B, inputs, H, W] -> [B, outputs, ceil(H / stride), ceil(W / stride)]."""
        return activated(self.norm(self.conv(x)), self.activation)

    def fuse(self, dtype: torch.dtype) -> InferenceConv2d:
        """The same as one operation, to predict with; raises `CannotFuse` where a layer is of another kind."""
        known(self, ConvNormAct)
        return fused_conv(
            known(self.conv, nn.Conv2d), self.norm, self.activation == "relu", dtype, silu=self.activation == "silu"
        )


def activated(x: Tensor, activation: Activation) -> Tensor:
    """[...] through the activation."""
    if activation == "relu":
        return x.relu()
    return F.silu(x) if activation == "silu" else x
