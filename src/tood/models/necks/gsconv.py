"""GSConv and its cross stage partial layer (Slim-neck, Li et al. 2022), as YOLOX-PAI has them.

Half of the channels come from an ordinary convolution, the other half from a depthwise one on these.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from tood.models.common.yolo_blocks import yolo_conv


class GSConv(nn.Module):
    """A convolution to half of the outputs, a 5x5 depthwise one on it, and both halves shuffled."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int = 1) -> None:
        super().__init__()
        half = outputs // 2
        # The published convolutions have biases of no effect before their norms.
        self.conv1 = yolo_conv(inputs, half, kernel, stride, bias=True)
        self.conv2 = yolo_conv(half, half, 5, groups=half, bias=True)

    def forward(self, x: Tensor) -> Tensor:
        """[B, inputs, H, W] -> [B, outputs, H / stride, W / stride]: of both halves the even channels, then the odd."""
        first = self.conv1(x)
        both = torch.cat([first, self.conv2(first)], dim=1)
        return torch.cat([both[:, ::2], both[:, 1::2]], dim=1)


class GSLayer(nn.Module):
    """A 1x1 convolution to half of the outputs, pairs of 1x1 GSConvs on it, and a convolution that joins both.

    Args:
        inputs, outputs: channels.
        blocks: pairs.
    """

    def __init__(self, inputs: int, outputs: int, blocks: int) -> None:
        super().__init__()
        hidden = outputs // 2
        self.main_conv = yolo_conv(inputs, hidden, 1)
        self.final_conv = yolo_conv(2 * hidden, outputs, 1)
        self.blocks = nn.Sequential(
            *(nn.Sequential(GSConv(hidden, hidden // 2, 1), GSConv(hidden // 2, hidden, 1)) for _ in range(blocks))
        )

    def forward(self, x: Tensor) -> Tensor:
        """[B, inputs, H, W] -> [B, outputs, H, W]."""
        half = self.main_conv(x)
        return self.final_conv(torch.cat([self.blocks(half), half], dim=1))  # type: ignore[no-any-return]
