"""GroupNorm and the ReLU after it, with a gradient that is fast on a CPU in bf16 too."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from tood.ops.activation import Activation, activated
from tood.ops.arithmetic import differentiable_once
from tood.ops.guard import is_awaited, is_followed, may_stand_in


def group_norm_relu(norm: nn.Module, x: Tensor) -> Tensor:
    """ReLU(norm(x)): [B, C, H, W] -> the same shape; in bf16 on a CPU differentiable once."""
    if x.device.type == "cpu" and x.dtype == torch.bfloat16 and may_stand_in(((norm, nn.GroupNorm),), (x,)):
        assert isinstance(norm, nn.GroupNorm)
        if norm.affine and norm.weight.dtype == torch.float32:
            out: Tensor = _GroupNormReLU.apply(x, norm.weight, norm.bias, norm.num_groups, norm.eps)  # type: ignore[no-untyped-call]
            return out
    return plain_group_norm_relu(norm, x)


def plain_group_norm_relu(norm: nn.Module, x: Tensor) -> Tensor:
    """The definition of `group_norm_relu` in ordinary PyTorch."""
    return relu_of(norm, norm(x))


def relu_of(norm: nn.Module, out: Tensor, activation: Activation = "relu") -> Tensor:
    """ReLU, or another activation, of what a norm gave: in its memory, unless somebody else may have kept that."""
    unseen = type(norm) in (nn.BatchNorm2d, nn.GroupNorm) and not is_awaited(norm) and not is_followed()
    return activated(out, activation, inplace=unseen)


class _GroupNormReLU(torch.autograd.Function):
    """In bf16 and channels-last, PyTorch 2.13 takes four times as long for the gradient as in fp32."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, groups: int, epsilon: float) -> Tensor:
        shape = (x.shape[0], x.shape[1], x.shape[2] * x.shape[3])
        x = x.contiguous(memory_format=torch.channels_last)
        out, mean, inverse = torch.native_group_norm(x, weight, bias, *shape, groups, epsilon)
        out = out.relu_()
        ctx.save_for_backward(x, out, mean, inverse, weight)
        ctx.shape, ctx.groups = shape, groups
        return out

    @staticmethod
    @differentiable_once
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, out, mean, inverse, weight = ctx.saved_tensors
        gradient = torch.ops.aten.threshold_backward(gradient, out, 0).float()
        to_x, to_weight, to_bias = torch.ops.aten.native_group_norm_backward(
            gradient, x.float(), mean.float(), inverse.float(), weight, *ctx.shape, ctx.groups, ctx.needs_input_grad[:3]
        )
        return None if to_x is None else to_x.to(x.dtype), to_weight, to_bias, None, None
