"""One convolution on several maps, such as a pyramid's levels, with one gradient of its weights.

The gradient of 590,000 weights (256 channels, 3x3) from a map of a hundred cells costs what writing them costs. Small
maps are therefore taken together, as one matrix product of their 3x3 neighbourhoods; wide layers in fp32 take all maps
through Winograd's algorithm at once.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tood.ops.arithmetic import arithmetic, differentiable_once
from tood.ops.conv_gradients import (
    by_cell,
    convolution_gradients,
    is_small,
    keeps_size_3x3,
    neighbourhoods,
    weight_gradient,
)
from tood.ops.guard import may_stand_in
from tood.ops.winograd import Winograd, pays_in_training


def shared_conv(conv: nn.Module, maps: Sequence[Tensor]) -> list[Tensor]:
    """`conv` on each map: [B, C, h, w] -> [B, O, h, w]; on a CPU differentiable once.

    Args:
        conv: one that is not an ordinary 3x3 of stride 1 is called as it is.
        maps: of the same batch and channels.
    """
    if maps[0].device.type == "cpu" and may_stand_in(((conv, nn.Conv2d),), maps):
        assert isinstance(conv, nn.Conv2d)
        if pays_in_training(conv, maps):
            return list(_WinogradConv.apply(conv.weight, conv.bias, *maps))  # type: ignore[no-untyped-call]
        if keeps_size_3x3(conv) and conv.bias is None:
            dtype = arithmetic(maps[0])
            cast = [features.to(dtype) for features in maps]
            return list(_SharedConv.apply(conv, conv.weight.to(dtype), *cast))  # type: ignore[no-untyped-call]
    return plain_shared_conv(conv, maps)


def plain_shared_conv(conv: nn.Module, maps: Sequence[Tensor]) -> list[Tensor]:
    """The definition of `shared_conv` in ordinary PyTorch."""
    return [conv(features) for features in maps]


class _WinogradConv(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, weight: Tensor, bias: Tensor | None, *maps: Tensor) -> tuple[Tensor, ...]:
        winograd = Winograd.of(weight)
        ctx.save_for_backward(winograd.kernels, *maps)
        ctx.size = winograd.size
        return tuple(winograd(maps, bias))

    @staticmethod
    @differentiable_once
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        kernels, *maps = ctx.saved_tensors
        needs_weight, needs_bias, *need_maps = ctx.needs_input_grad
        winograd = Winograd(kernels, ctx.size)
        to_maps, to_weight = winograd.gradients(maps, gradients, to_maps=any(need_maps), to_weight=needs_weight)
        to_bias = torch.stack([gradient.sum((0, 2, 3)) for gradient in gradients]).sum(0) if needs_bias else None
        return to_weight, to_bias, *(to_maps if to_maps is not None else [None for _ in maps])


class _SharedConv(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, conv: nn.Conv2d, weight: Tensor, *maps: Tensor) -> tuple[Tensor, ...]:
        ctx.save_for_backward(weight, *maps)
        ctx.conv = conv
        return tuple(F.conv2d(features, weight, padding=1) for features in maps)

    @staticmethod
    @differentiable_once
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        weight, *maps = ctx.saved_tensors
        _, needs_weight, *need_maps = ctx.needs_input_grad
        to_maps, to_weights, small = [], [], []
        for features, gradient, needed in zip(maps, gradients, need_maps, strict=True):
            together = needs_weight and is_small(gradient)
            to_map, part = convolution_gradients(
                ctx.conv, features, weight, gradient, to_x=needed, to_weight=needs_weight and not together
            )
            to_maps.append(to_map)
            if part is not None:
                to_weights.append(part)
            if together:
                small.append((by_cell(gradient), neighbourhoods(features)))
        if small:
            to_weights.append(weight_gradient(*(torch.cat(rows) for rows in zip(*small, strict=True))))
        return None, functools.reduce(Tensor.add_, to_weights) if to_weights else None, *to_maps
