"""Cross-stage partial (CSP) stages of re-parameterisable blocks: PP-YOLOE's backbone and neck are made of them."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from tood.models.common.conv_block import ConvNormAct
from tood.models.common.norms import BiasedBatchNorm2d
from tood.models.common.rep_block import RepBlock


def conv_norm_silu(inputs: int, outputs: int, kernel: int, stride: int = 1) -> ConvNormAct:
    """A convolution with the family's norm and SiLU."""
    return ConvNormAct(inputs, outputs, kernel, stride, activation="silu", norm=BiasedBatchNorm2d)


class RepResidual(nn.Module):
    """A 3x3 convolution and a re-parameterisable block, beside the identity where there is a shortcut.

    Args:
        width: channels in and out.
        shortcut: whether the input is added to what comes out.
        alpha: whether the block weighs its 1x1 branch (see `RepBlock`).
    """

    def __init__(self, width: int, shortcut: bool, alpha: bool) -> None:
        super().__init__()
        self.conv = conv_norm_silu(width, width, 3)
        self.rep = RepBlock(width, width, activation="silu", alpha=alpha, norm=BiasedBatchNorm2d)
        self.shortcut = shortcut

    def forward(self, x: Tensor) -> Tensor:
        """[B, width, H, W] -> the same shape."""
        out: Tensor = self.rep(self.conv(x))
        return x + out if self.shortcut else out


class ChannelAttention(nn.Module):
    """Effective squeeze-excitation (CenterMask, Lee and Park 2020): a factor for each channel from all averages."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.fc = nn.Conv2d(width, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        """[B, width, H, W] -> the same shape."""
        # PyTorch's `hardsigmoid` has no second derivative.
        weights: Tensor = (self.fc(spatial_average(x)) / 6 + 0.5).clamp(0, 1)
        return x * weights


class PyramidPooling(nn.Module):
    """Spatial pyramid pooling: the map beside its maxima over windows of several sides, then a 1x1 convolution.

    Args:
        width: channels in and out.
        sides: of the windows, odd.
    """

    def __init__(self, width: int, sides: Sequence[int] = (5, 9, 13)) -> None:
        super().__init__()
        self.pools = nn.ModuleList(nn.MaxPool2d(side, stride=1, padding=side // 2) for side in sides)
        self.conv = conv_norm_silu(width * (1 + len(sides)), width, 1)

    def forward(self, x: Tensor) -> Tensor:
        """[B, width, H, W] -> the same shape."""
        pooled: Tensor = self.conv(torch.cat([x, *(pool(x) for pool in self.pools)], dim=1))
        return pooled


class CSPStage(nn.Module):
    """Half of the channels go past the blocks, the other half through them; then both become the output.

    Args:
        inputs, outputs: channels.
        half: channels of each half.
        blocks: what the second half goes through, by name.
        attention: whether the channels of both are weighed before the last convolution.
    """

    def __init__(self, inputs: int, outputs: int, half: int, blocks: Mapping[str, nn.Module], attention: bool) -> None:
        super().__init__()
        self.past = conv_norm_silu(inputs, half, 1)
        self.through = conv_norm_silu(inputs, half, 1)
        self.blocks = nn.Sequential(OrderedDict(blocks))
        self.attention = ChannelAttention(2 * half) if attention else None
        self.out = conv_norm_silu(2 * half, outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        """[B, inputs, H, W] -> [B, outputs, H, W]."""
        both = torch.cat([self.past(x), self.blocks(self.through(x))], dim=1)
        out: Tensor = self.out(both if self.attention is None else self.attention(both))
        return out


CSP_KINDS: tuple[type[nn.Module], ...] = (CSPStage, RepResidual, ChannelAttention, PyramidPooling)
"""For `with_fused_parts`."""


def spatial_average(x: Tensor) -> Tensor:
    """[B, C, H, W] -> [B, C, 1, 1]; summed up in fp32."""
    return x.mean(dim=(2, 3), keepdim=True, dtype=torch.float32).to(x.dtype)


def start_csp(module: nn.Module) -> None:
    """Gives every convolution within `module` the family's initial weights: normal of variance 2 / inputs, biases 0.

    Inputs are those of one output: channels of a group times the kernel's area.
    """
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, mode="fan_in", nonlinearity="relu")
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
