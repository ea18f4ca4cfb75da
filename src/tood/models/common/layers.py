"""Layers that several families share."""

from __future__ import annotations

from torch import Tensor, nn


class ConvNormReLU(nn.Module):
    """Convolution without bias, GroupNorm, ReLU."""

    def __init__(self, inputs: int, outputs: int, kernel: int, groups: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, bias=False)
        self.norm = nn.GroupNorm(groups, outputs)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        """[B, inputs, H, W] -> [B, outputs, H, W]."""
        out: Tensor = self.relu(self.norm(self.conv(x)))
        return out


def init_normal(module: nn.Module, std: float = 0.01, bias: float = 0.0) -> None:
    """Every convolution within `module`: weights normal with `std`, biases at `bias`."""
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.normal_(layer.weight, std=std)
            if layer.bias is not None:
                nn.init.constant_(layer.bias, bias)
