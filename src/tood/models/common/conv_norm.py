"""A convolution and the BatchNorm after it; where the norm keeps its statistics, as one step that learns.

A norm in evaluation mode is a scale and a shift of each channel. Taken into the convolution's weights they cost
nothing that grows with the image: no pass over the maps for the norm, the sum and the ReLU, neither forwards nor
backwards, and no map kept for the norm's gradient.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from tood.models.common.operators import arithmetic, fuses_convolutions, is_bare


def conv_norm(
    conv: nn.Conv2d, norm: nn.BatchNorm2d, x: Tensor, relu: bool = True, added: Tensor | None = None
) -> Tensor:
    """norm(conv(x)) + added, through ReLU where asked.

    Args:
        conv: of any kind; what is not an ordinary one without bias is computed as it is.
        norm: training or not.
        x: [B, C, H, W].
        relu: whether ReLU follows.
        added: [B, O, h, w], or None.

    Returns:
        [B, O, h, w]; of a norm in evaluation mode on a CPU equal but for rounding to computing one after the other, and
        differentiable once.
    """
    if _can_fold(conv, norm, x):
        out: Tensor = _FoldedConvNorm.apply(
            x, conv.weight, norm.weight, norm.bias, norm.running_mean, norm.running_var, added, conv, norm.eps, relu
        )  # type: ignore[no-untyped-call]
        return out
    out = norm(conv(x))
    if added is not None:
        out = out + added
    return F.relu(out, inplace=True) if relu else out


def _can_fold(conv: nn.Conv2d, norm: nn.BatchNorm2d, x: Tensor) -> bool:
    # In fp32 without gradients the digits stay those of the plain network, which golden values are compared with; where
    # speed counts, `tood.models.inference` does more. In bf16 both ways are one, as exact accumulation needs it.
    return (
        x.device.type == "cpu"
        and (torch.is_grad_enabled() or torch.is_autocast_enabled("cpu"))
        and type(conv) is nn.Conv2d
        and conv.bias is None
        and conv.padding_mode == "zeros"
        and not isinstance(conv.padding, str)
        and not norm.training
        and norm.affine
        and norm.running_var is not None
        and conv.weight.dtype == torch.float32
        and is_bare(conv, norm)
        and fuses_convolutions(arithmetic(x))
    )


class _FoldedConvNorm(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        gain: Tensor,
        shift: Tensor,
        mean: Tensor,
        variance: Tensor,
        added: Tensor | None,
        conv: nn.Conv2d,
        epsilon: float,
        relu: bool,
    ) -> Tensor:
        dtype = arithmetic(x)
        inverse = (variance + epsilon).rsqrt()
        scale = gain * inverse  # [O]
        # Written in the dtype of the product at once: the cast that autocast would make is part of it.
        folded = torch.empty_like(weight, dtype=dtype)
        torch.mul(weight, scale[:, None, None, None], out=folded)
        bias = torch.addcmul(shift, mean, scale, value=-1).to(dtype)
        geometry = (conv.padding, conv.stride, conv.dilation, conv.groups)
        # In ordinary memory oneDNN has no sum with ReLU in bf16.
        x = x.to(dtype, memory_format=torch.channels_last)
        operator = torch.ops.mkldnn._convolution_pointwise
        if added is None:
            out: Tensor = operator(x, folded, bias, *geometry, "relu" if relu else "none", [], None)
        else:
            added = added.to(dtype, memory_format=torch.channels_last)
            out = operator.binary(x, added, folded, bias, *geometry, "add", 1.0, "relu" if relu else None, [], None)
        ctx.save_for_backward(x, weight, folded, scale, inverse, mean, out if relu else None)
        ctx.conv, ctx.has_added = conv, added is not None
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, folded, scale, inverse, mean, out = ctx.saved_tensors
        needs_x, needs_weight, needs_gain, needs_shift = ctx.needs_input_grad[:4]
        if out is not None:
            gradient = torch.ops.aten.threshold_backward(gradient, out, 0)
        conv, needs_bias = ctx.conv, needs_gain or needs_shift
        to_x, to_folded, to_bias = torch.ops.aten.convolution_backward(
            gradient,
            x,
            folded,
            [len(weight)],
            conv.stride,
            conv.padding,
            conv.dilation,
            False,
            [0, 0],
            conv.groups,
            [needs_x, needs_weight or needs_gain, needs_bias],
        )
        to_weight = to_gain = None
        if needs_bias:
            to_bias = to_bias.float()
        if needs_weight or needs_gain:
            to_folded = to_folded.float()
        if needs_gain:
            product = (to_folded * weight).sum(dim=(1, 2, 3))
            to_gain = torch.addcmul(product, mean, to_bias, value=-1) * inverse
        if needs_weight:
            to_weight = to_folded.mul_(scale[:, None, None, None])
        added = gradient if ctx.has_added else None
        return to_x, to_weight, to_gain, to_bias if needs_shift else None, None, None, added, None, None, None
