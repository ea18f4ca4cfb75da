"""GroupNorm and the ReLU after it, with a gradient that is fast on a CPU in bf16 too."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from tood.models.common.operators import is_bare


def norm_relu(norm: nn.GroupNorm, x: Tensor) -> Tensor:
    """ReLU(norm(x)): [B, C, H, W] -> the same shape; in bf16 on a CPU differentiable once."""
    if x.device.type == "cpu" and x.dtype == torch.bfloat16 and _is_ours(norm):
        out: Tensor = _NormReLU.apply(x, norm.weight, norm.bias, norm.num_groups, norm.eps)  # type: ignore[no-untyped-call]
        return out
    return F.relu(norm(x), inplace=True)


def _is_ours(norm: nn.GroupNorm) -> bool:
    return norm.affine and norm.weight.dtype == torch.float32 and is_bare(norm)


class _NormReLU(torch.autograd.Function):
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
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, out, mean, inverse, weight = ctx.saved_tensors
        gradient = torch.ops.aten.threshold_backward(gradient, out, 0).float()
        to_x, to_weight, to_bias = torch.ops.aten.native_group_norm_backward(
            gradient, x.float(), mean.float(), inverse.float(), weight, *ctx.shape, ctx.groups, ctx.needs_input_grad[:3]
        )
        return None if to_x is None else to_x.to(x.dtype), to_weight, to_bias, None, None
