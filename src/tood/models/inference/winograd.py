"""3x3 convolutions with 16 multiplications where others need 36 (Winograd 1980; Lavin and Gray 2016, F(2x2, 3x3)).

Each 2x2 square of outputs is computed from a 4x4 square of inputs: both are transformed by sums and differences, and
between them stand 16 matrix products. In fp32 the result is as near to the exact one as the direct sum's is. The map is
taken in strips so small that all that lies between stays in the cache.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

# Squares in a strip: bytes that their transformed inputs may take, and at least so many, for the products' sake.
STRIP_BYTES = 11 << 18
LEAST_SQUARES = 160
# Below, oneDNN's direct convolution is as fast.
LEAST_CHANNELS = 128

# Rows transform a filter's three taps into four.
_TAPS = ((1.0, 0.0, 0.0), (0.5, 0.5, 0.5), (0.5, -0.5, 0.5), (0.0, 0.0, 1.0))


class WinogradConv2d(nn.Module):
    """A 3x3 convolution of stride 1 and padding 1 with bias, in fp32 on a CPU, without gradient.

    Args:
        weight: [O, C, 3, 3].
        bias: [O], or None.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        super().__init__()
        taps = torch.tensor(_TAPS, dtype=torch.float64)
        transformed = torch.einsum("ia,jb,ocab->ijco", taps, taps, weight.double())
        self.kernels = transformed.flatten(0, 1).float().contiguous()  # [16, C, O]
        self.bias = bias

    @staticmethod
    def pays(weight: Tensor) -> bool:
        """Whether a convolution of these weights can be faster so."""
        return weight.shape[2:] == (3, 3) and min(weight.shape[:2]) >= LEAST_CHANNELS

    def forward(self, x: Tensor, relu: bool = False) -> Tensor:
        """[B, C, H, W] in channels-last memory -> [B, O, H, W], through ReLU where asked."""
        batch, channels, height, width = x.shape
        outputs = self.kernels.shape[2]
        down, across = (height + 1) // 2, (width + 1) // 2
        cells = x.permute(0, 2, 3, 1)
        out = x.new_empty(batch, height, width, outputs)
        squares = max(STRIP_BYTES // (64 * max(channels, outputs)), LEAST_SQUARES)
        images_at_once = max(squares // (down * across), 1)
        rows_at_once = min(max(squares // across, 1), down)
        # The border columns stay zero.
        half = x.new_zeros(4, images_at_once, rows_at_once, 2 * across + 2, channels)
        full = x.new_empty(16 * images_at_once * rows_at_once * across * channels)
        for first in range(0, batch, images_at_once):
            images = cells[first : first + images_at_once]
            for row in range(0, down, rows_at_once):
                rows = min(rows_at_once, down - row)
                lines = _lines(images, 2 * row - 1, 2 * rows + 2)
                transformed = _inputs(lines, half[:, : len(images), :rows], full, width)
                products = torch.bmm(transformed, self.kernels)
                if self.bias is not None:
                    products[5].add_(self.bias)  # the one that every output holds once, with a plus
                part = out[first : first + images_at_once, 2 * row : 2 * (row + rows)]
                _outputs(products.view(4, 4, len(images), rows, across, outputs), part)
                if relu:
                    part.relu_()
        return out.permute(0, 3, 1, 2)


def _lines(images: Tensor, start: int, count: int) -> Tensor:
    """`count` lines of images [b, H, W, C] from `start` on, zeros outside."""
    height = images.shape[1]
    end = start + count
    above, below = max(-start, 0), max(end - height, 0)
    inside = images[:, start + above : end - below]
    return F.pad(inside, (0, 0, 0, 0, above, below)) if above or below else inside


def _inputs(lines: Tensor, half: Tensor, full: Tensor, width: int) -> Tensor:
    """Transformed inputs [16, b * rows * across, C], in the memory of `full`.

    Args:
        lines: [b, 2 * rows + 2, W, C].
        half: [4, b, rows, 2 * across + 2, C] to compute in, zero in its border columns.
        full: memory for the result.
        width: W.
    """
    _, images, rows, columns, channels = half.shape
    across = columns // 2 - 1
    _differences(lines.unfold(1, 4, 2), half[:, :, :, 1 : width + 1])
    result = full[: 16 * images * rows * across * channels].view(4, 4, images, rows, across, channels)
    _differences(half.unfold(3, 4, 2), result.transpose(0, 1))
    return result.view(16, images * rows * across, channels)


def _differences(groups: Tensor, out: Tensor) -> None:
    """Groups of four inputs in a row, [..., 4] -> [4, ...]."""
    first, second, third, fourth = groups.unbind(-1)
    torch.sub(first, third, out=out[0])
    torch.add(second, third, out=out[1])
    torch.sub(third, second, out=out[2])
    torch.sub(second, fourth, out=out[3])


def _outputs(products: Tensor, out: Tensor) -> None:
    """Products [4, 4, b, rows, across, O] -> outputs [b, H, W, O], H = 2 * rows and W = 2 * across or one less."""
    lines = ((products[0] + products[1]).add_(products[2]), (products[1] - products[2]).sub_(products[3]))
    for i, line in enumerate(lines):
        rows = out[:, i::2]
        even, odd = rows[:, :, 0::2], rows[:, :, 1::2]
        count, width = odd.shape[1:3]
        line = line[:, :, :count]
        torch.add(line[0], line[1], out=even).add_(line[2])
        line = line[:, :, :, :width]
        torch.sub(line[1], line[2], out=odd).sub_(line[3])
