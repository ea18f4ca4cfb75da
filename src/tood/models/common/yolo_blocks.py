"""Blocks of the YOLO line: cross stage partial layers (Wang et al. 2020), pooling over several windows."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tood.models.common.conv_block import ConvNormAct
from tood.ops import Activation


def yolo_norm(width: int) -> nn.BatchNorm2d:
    """The BatchNorm of the YOLO line, for so many channels."""
    return nn.BatchNorm2d(width, eps=1e-3, momentum=0.03)


def yolo_conv(
    inputs: int,
    outputs: int,
    kernel: int,
    stride: int = 1,
    groups: int = 1,
    activation: Activation = "silu",
    bias: bool = False,
) -> ConvNormAct:
    """A convolution, that BatchNorm and the activation; see `ConvNormAct`."""
    return ConvNormAct(inputs, outputs, kernel, stride, groups, activation, yolo_norm, bias)


class DepthwiseSeparable(nn.Module):
    """A 3x3 convolution of each channel for itself, then a 1x1 convolution, each with BatchNorm and SiLU."""

    def __init__(self, inputs: int, outputs: int, stride: int = 1) -> None:
        super().__init__()
        self.depthwise_conv = yolo_conv(inputs, inputs, 3, stride, groups=inputs)
        self.pointwise_conv = yolo_conv(inputs, outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        """[B, inputs, H, W] -> [B, outputs, H / stride, W / stride]."""
        return self.pointwise_conv(self.depthwise_conv(x))  # type: ignore[no-any-return]


def conv3x3(inputs: int, outputs: int, stride: int = 1, *, depthwise: bool) -> ConvNormAct | DepthwiseSeparable:
    """A 3x3 convolution, BatchNorm and SiLU, or their depthwise separable form."""
    return DepthwiseSeparable(inputs, outputs, stride) if depthwise else yolo_conv(inputs, outputs, 3, stride)


class Bottleneck(nn.Module):
    """1x1, then 3x3, beside the identity where `add`."""

    def __init__(self, width: int, add: bool, depthwise: bool) -> None:
        super().__init__()
        self.conv1 = yolo_conv(width, width, 1)
        self.conv2 = conv3x3(width, width, depthwise=depthwise)
        self.add = add

    def forward(self, x: Tensor) -> Tensor:
        """[B, width, H, W] -> the same shape."""
        out: Tensor = self.conv2(self.conv1(x))
        return out + x if self.add else out


class CSPLayer(nn.Module):
    """Two 1x1 convolutions halve the width; one half goes through bottlenecks; a third convolution joins both.

    Args:
        inputs, outputs: channels.
        blocks: bottlenecks.
        add: whether these stand beside the identity.
        depthwise: whether their 3x3 convolutions are depthwise separable.
    """

    def __init__(self, inputs: int, outputs: int, blocks: int, add: bool, depthwise: bool) -> None:
        super().__init__()
        hidden = outputs // 2
        self.main_conv = yolo_conv(inputs, hidden, 1)
        self.short_conv = yolo_conv(inputs, hidden, 1)
        self.final_conv = yolo_conv(2 * hidden, outputs, 1)
        self.blocks = nn.Sequential(*(Bottleneck(hidden, add, depthwise) for _ in range(blocks)))

    def forward(self, x: Tensor) -> Tensor:
        """[B, inputs, H, W] -> [B, outputs, H, W]."""
        halves = torch.cat([self.blocks(self.main_conv(x)), self.short_conv(x)], dim=1)
        return self.final_conv(halves)  # type: ignore[no-any-return]


class PoolingBottleneck(nn.Module):
    """A map beside its largest values within 5x5, 9x9 and 13x13 cells, between two 1x1 convolutions.

    The larger windows are the 5x5 one twice and three times over, which gives the same values.
    """

    def __init__(self, inputs: int, outputs: int, activation: Activation = "silu") -> None:
        super().__init__()
        self.conv1 = yolo_conv(inputs, inputs // 2, 1, activation=activation)
        self.conv2 = yolo_conv(inputs // 2 * 4, outputs, 1, activation=activation)

    def forward(self, x: Tensor) -> Tensor:
        """[B, inputs, H, W] -> [B, outputs, H, W]."""
        maps = [self.conv1(x)]
        for _ in range(3):
            maps.append(F.max_pool2d(maps[-1], 5, stride=1, padding=2))
        return self.conv2(torch.cat(maps, dim=1))  # type: ignore[no-any-return]


def space_to_depth(maps: Tensor) -> Tensor:
    """Of each 2x2 cells the left ones, then the right ones, from top to bottom, as channels of one.

    [B, C, H, W], even sides -> [B, 4 * C, H / 2, W / 2].
    """
    return torch.cat([maps[..., row::2, column::2] for column in (0, 1) for row in (0, 1)], dim=1)


YOLO_KINDS: tuple[type[nn.Module], ...] = (DepthwiseSeparable, Bottleneck, CSPLayer, PoolingBottleneck)
"""For `with_fused_parts`."""


def init_convolutions(module: nn.Module) -> None:
    """Every convolution within `module` as YOLOX starts: uniform in -/+ 1 / sqrt(fan in), biases at 0."""
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_uniform_(layer.weight, a=math.sqrt(5))
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
