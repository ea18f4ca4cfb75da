"""Convolutions with TensorFlow's SAME padding, which networks published by Google were trained with."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn


class SameConv2d(nn.Conv2d):
    """A convolution whose output has ceil(H / stride) x ceil(W / stride) cells, whatever its kernel.

    The zeros that this takes lie around the map, one more below and on the right where their number is odd: with stride
    2 and even sides a 3x3 kernel gets none above and on the left, where `padding=1` of PyTorch gives it one. Its own
    `padding` stays 0.
    """

    def forward(self, input: Tensor) -> Tensor:
        """[B, C, H, W] -> [B, O, ceil(H / stride), ceil(W / stride)]."""
        left, right, top, bottom = self.same_padding(*input.shape[2:])
        geometry = (self.stride, (top, left), self.dilation, self.groups)
        if (left, top) != (right, bottom):
            input, geometry = F.pad(input, (left, right, top, bottom)), (self.stride, (0, 0), *geometry[2:])
        return F.conv2d(input, self.weight, self.bias, *geometry)

    def same_padding(self, height: int, width: int) -> tuple[int, int, int, int]:
        """Rows and columns of zeros around a map of this size: left, right, top, bottom, as `F.pad` takes them."""
        reach = [(side - 1) * spacing + 1 for side, spacing in zip(self.kernel_size, self.dilation, strict=True)]
        top, bottom = same_zeros(height, reach[0], self.stride[0])
        left, right = same_zeros(width, reach[1], self.stride[1])
        return left, right, top, bottom


def same_zeros(size: int, kernel: int, stride: int) -> tuple[int, int]:
    """Cells of zeros before and after a side of a map.

    Args:
        size: cells of the side.
        kernel: cells that the kernel spans.
        stride: of the convolution.
    """
    # This is max((ceil(size / stride) - 1) * stride + kernel - size, 0); at stride 1 the size is not asked for, so that
    # an exported program stays free in it.
    last = 1 if stride == 1 else size % stride or stride
    total = max(kernel - last, 0)
    return total // 2, total - total // 2


def conv_kind(conv: nn.Module) -> type[nn.Conv2d]:
    """The class of convolution whose forward an operator may compute in this one's place, if it is one."""
    return SameConv2d if isinstance(conv, SameConv2d) else nn.Conv2d
