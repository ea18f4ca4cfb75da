"""One convolution on several maps, such as a pyramid's levels, with one gradient of its weights.

The gradient of 590,000 weights (256 channels, 3x3) from a map of a hundred cells costs what writing them costs. Small
maps are therefore taken together, as one matrix product of their 3x3 neighbourhoods.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from tood.models.common.operators import arithmetic, is_bare

# Cells of a map, those of all images together, up to which it is a small one.
SMALL = 400


def shared_conv(conv: nn.Conv2d, maps: Sequence[Tensor]) -> list[Tensor]:
    """`conv` on each map: [B, C, h, w] -> [B, O, h, w]; on a CPU differentiable once.

    Args:
        conv: one that is not an ordinary 3x3 of stride 1 without bias is called as it is.
        maps: of the same batch and channels.
    """
    if _is_plain(conv) and maps[0].device.type == "cpu":
        dtype = arithmetic(maps[0])
        cast = [features.to(dtype) for features in maps]
        return list(_SharedConv.apply(conv.weight.to(dtype), *cast))  # type: ignore[no-untyped-call]
    return [conv(features) for features in maps]


def _is_plain(conv: nn.Conv2d) -> bool:
    geometry = (conv.kernel_size, conv.stride, conv.padding, conv.dilation, conv.groups)
    usual = geometry == ((3, 3), (1, 1), (1, 1), (1, 1), 1) and conv.padding_mode == "zeros" and conv.bias is None
    return type(conv) is nn.Conv2d and usual and is_bare(conv)


class _SharedConv(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, weight: Tensor, *maps: Tensor) -> tuple[Tensor, ...]:
        ctx.save_for_backward(weight, *maps)
        return tuple(F.conv2d(features, weight, padding=1) for features in maps)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        weight, *maps = ctx.saved_tensors
        to_maps, to_weights, small = [], [], []
        for features, gradient, needed in zip(maps, gradients, ctx.needs_input_grad[1:], strict=True):
            is_small = gradient[:, 0].numel() <= SMALL
            wanted = [needed, ctx.needs_input_grad[0] and not is_small, False]
            to_map, part, _ = torch.ops.aten.convolution_backward(
                gradient, features, weight, None, [1, 1], [1, 1], [1, 1], False, [0, 0], 1, wanted
            )
            to_maps.append(to_map)
            if part is not None:
                to_weights.append(part)
            if is_small and ctx.needs_input_grad[0]:
                small.append((_neighbourhoods(features), gradient.permute(0, 2, 3, 1).flatten(0, 2)))
        if small:
            cells, of_cells = (torch.cat(rows) for rows in zip(*small, strict=True))  # [R, 9C], [R, O]
            product = (of_cells.t() @ cells).view(len(weight), 3, 3, -1)
            to_weights.append(product.permute(0, 3, 1, 2))
        return functools.reduce(Tensor.add_, to_weights) if to_weights else None, *to_maps


def _neighbourhoods(features: Tensor) -> Tensor:
    """[B, C, h, w] -> [B * h * w, 9 * C]: what a 3x3 convolution sees at each cell, zeros outside."""
    padded = F.pad(features.permute(0, 2, 3, 1), (0, 0, 1, 1, 1, 1))  # [B, h + 2, w + 2, C]
    windows = padded.unfold(1, 3, 1).unfold(2, 3, 1)  # [B, h, w, C, 3, 3]
    return windows.permute(0, 1, 2, 4, 5, 3).flatten(0, 2).flatten(1)
