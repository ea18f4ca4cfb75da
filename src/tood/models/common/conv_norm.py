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

from tood.models.common.conv_gradients import convolution_gradients
from tood.models.common.operators import arithmetic, fuses_convolutions, is_bare
from tood.models.common.winograd import Winograd, is_plain_3x3, pays_in_training

# Numbers that stay in the cores' caches between two passes.
CACHED = 1 << 18


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
        of_norm = (norm.weight, norm.bias, norm.running_mean, norm.running_var)
        by_winograd = is_plain_3x3(conv) and pays_in_training(conv.weight, [x])
        out: Tensor = _FoldedConvNorm.apply(x, conv.weight, *of_norm, added, conv, norm.eps, relu, by_winograd)  # type: ignore[no-untyped-call]
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
        by_winograd: bool,
    ) -> Tensor:
        dtype = arithmetic(x)
        inverse = (variance + epsilon).rsqrt()
        scale = gain * inverse  # [O]
        folded = _scaled(weight, scale, dtype)
        bias = torch.addcmul(shift, mean, scale, value=-1).to(dtype)
        # In ordinary memory oneDNN has no sum with ReLU in bf16.
        x = x.to(dtype, memory_format=torch.channels_last)
        added = None if added is None else added.to(dtype, memory_format=torch.channels_last)
        if by_winograd:
            winograd = Winograd.of(folded)
            (out,) = winograd([x], bias, relu and added is None)
            out = out if added is None else out.add_(added)
            out = out.relu_() if relu and added is not None else out
        else:
            out = _fused(conv, x, folded, bias, added, relu)
        weights = winograd.kernels if by_winograd else folded
        ctx.save_for_backward(x, weight, weights, scale, inverse, mean, out if relu else None)
        ctx.winograd_size = winograd.size if by_winograd else None
        ctx.conv, ctx.has_added = conv, added is not None
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, weights, scale, inverse, mean, out = ctx.saved_tensors
        needs_x, needs_weight, needs_gain, needs_shift = ctx.needs_input_grad[:4]
        if out is not None:
            gradient = torch.ops.aten.threshold_backward(gradient, out, 0)
        if ctx.winograd_size is not None:
            winograd = Winograd(weights, ctx.winograd_size)
            to_maps, to_folded = winograd.gradients([x], [gradient], needs_x, needs_weight or needs_gain)
            to_x = to_maps[0] if to_maps else None
        else:
            to_x, to_folded = convolution_gradients(ctx.conv, x, weights, gradient, needs_x, needs_weight or needs_gain)
        to_weight = to_gain = None
        to_bias = gradient.sum((0, 2, 3)).float() if needs_gain or needs_shift else None
        if to_folded is not None:
            to_folded = to_folded.float()
            if needs_gain and to_bias is not None:
                product = (to_folded * weight).sum(dim=(1, 2, 3))
                to_gain = torch.addcmul(product, mean, to_bias, value=-1) * inverse
            if needs_weight:
                to_weight = to_folded.mul_(scale[:, None, None, None])
        added = gradient if ctx.has_added else None
        return to_x, to_weight, to_gain, to_bias if needs_shift else None, None, None, added, None, None, None, None


def _scaled(weight: Tensor, scale: Tensor, dtype: torch.dtype) -> Tensor:
    """weight [O, ...] * scale [O], in `dtype`."""
    factors = scale[:, None, None, None]
    if dtype == weight.dtype:
        return weight * factors
    out = torch.empty_like(weight, dtype=dtype)
    # Some filters at a time: what is not rounded yet stays in the cache.
    count = max(CACHED // weight[0].numel(), 1)
    for start in range(0, len(weight), count):
        part = slice(start, start + count)
        out[part] = weight[part] * factors[part]
    return out


def _fused(conv: nn.Conv2d, x: Tensor, weight: Tensor, bias: Tensor, added: Tensor | None, relu: bool) -> Tensor:
    """The convolution of these weights with all that follows it written at once."""
    geometry = (conv.padding, conv.stride, conv.dilation, conv.groups)
    operator = torch.ops.mkldnn._convolution_pointwise
    if added is None:
        out: Tensor = operator(x, weight, bias, *geometry, "relu" if relu else "none", [], None)
    else:
        out = operator.binary(x, added, weight, bias, *geometry, "add", 1.0, "relu" if relu else None, [], None)
    return out
