"""A convolution with its BatchNorm and activation; where the norm keeps its statistics, as one step that learns.

A norm in evaluation mode is a scale and a shift of each channel. Taken into the convolution's weights they cost
nothing that grows with the image: no pass over the maps for the norm, the sum and the ReLU, neither forwards nor
backwards, and no map kept for the norm's gradient.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tood.ops.activation import FUSED, Activation, activated, activation_of, before_activation
from tood.ops.arithmetic import arithmetic, differentiable_once, fuses_convolutions
from tood.ops.conv_geometry import Geometry, is_misread
from tood.ops.conv_gradients import convolution_gradients
from tood.ops.depthwise import is_depthwise
from tood.ops.group_norm_relu import relu_of
from tood.ops.guard import may_stand_in
from tood.ops.same_conv import conv_kind
from tood.ops.winograd import Winograd, pays_in_training

# Numbers that stay in the cores' caches between two passes.
CACHED = 1 << 18


def conv_norm(
    conv: nn.Module,
    norm: nn.Module,
    x: Tensor,
    activation: Activation | bool = "relu",
    added: Tensor | None = None,
) -> Tensor:
    """norm(conv(x)) + added, through an activation where asked.

    Args:
        conv: of any kind; what is neither an ordinary one nor a `SameConv2d`, both without bias, is called as it is.
        norm: of any kind, training or not.
        x: [B, C, H, W].
        activation: what follows; True and False stand for "relu" and "none".
        added: [B, O, h, w], or None.

    Returns:
        [B, O, h, w]; on a CPU, with a norm in evaluation mode or a depthwise convolution, equal but for rounding to
        computing one after the other, and differentiable once.
    """
    activation = activation_of(activation)
    if activation == "silu":  # its gradient needs what came in
        return activated(conv_norm(conv, norm, x, "none", added), activation)
    if not may_stand_in(((conv, conv_kind(conv)), (norm, nn.BatchNorm2d)), (x, added)):
        return plain_conv_norm(conv, norm, x, activation, added)
    assert isinstance(conv, nn.Conv2d)
    assert isinstance(norm, nn.BatchNorm2d)
    if not _is_computed_here(conv, x):
        return plain_conv_norm(conv, norm, x, activation, added)
    if not _keeps_statistics(norm):
        convolved = _DepthwiseConv.apply(x, conv.weight, conv) if is_depthwise(conv) else conv(x)  # type: ignore[no-untyped-call]
        return _after_norm(norm, norm(convolved), activation, added)
    algorithm = _ByWinograd() if pays_in_training(conv, [x]) else _Direct(conv)
    of_norm = (norm.weight, norm.bias, norm.running_mean, norm.running_var)
    out: Tensor = _FoldedConvNorm.apply(x, added, conv.weight, *of_norm, norm.eps, activation, algorithm)  # type: ignore[no-untyped-call]
    return out


def plain_conv_norm(
    conv: nn.Module,
    norm: nn.Module,
    x: Tensor,
    activation: Activation | bool = "relu",
    added: Tensor | None = None,
) -> Tensor:
    """The definition of `conv_norm` in ordinary PyTorch."""
    activation = activation_of(activation)
    return _after_norm(norm, norm(conv(x)), activation, added)


def _after_norm(norm: nn.Module, out: Tensor, activation: Activation, added: Tensor | None) -> Tensor:
    if added is not None:
        return activated(out + added, activation, inplace=True)
    return relu_of(norm, out, activation)


def _is_computed_here(conv: nn.Conv2d, x: Tensor) -> bool:
    # In fp32 without gradients the digits stay those of the plain network, which golden values are compared with; where
    # speed counts, `tood.models.for_inference` does more. In bf16 both are one, as exact accumulation needs it.
    return (
        x.device.type == "cpu"
        and (torch.is_grad_enabled() or torch.is_autocast_enabled("cpu"))
        and conv.bias is None
        and conv.padding_mode == "zeros"
        and not isinstance(conv.padding, str)
        and (conv.dilation == (1, 1) or Geometry.of(conv, x).is_symmetric)
        and conv.weight.dtype == torch.float32
        and fuses_convolutions(arithmetic(x))
    )


def _keeps_statistics(norm: nn.BatchNorm2d) -> bool:
    evaluates = not norm.training and norm.running_var is not None
    return evaluates and norm.affine and norm.weight.dtype == torch.float32


class _DepthwiseConv(torch.autograd.Function):
    """A depthwise convolution alone, before a norm that learns its statistics."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, conv: nn.Conv2d) -> Tensor:
        dtype = arithmetic(x)
        x, kernels = x.to(dtype, memory_format=torch.channels_last), weight.to(dtype)
        ctx.save_for_backward(x, kernels)
        ctx.conv = conv
        out, _ = _Direct(conv).outputs(x, kernels, None, None, "none")
        return out

    @staticmethod
    @differentiable_once
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        x, kernels = ctx.saved_tensors
        to_x, to_weight = ctx.needs_input_grad[:2]
        return *convolution_gradients(ctx.conv, x, kernels, gradient, to_x=to_x, to_weight=to_weight), None


@dataclass(frozen=True)
class _Direct:
    """oneDNN's convolution, in any arithmetic that it has.

    Attributes:
        conv: its geometry.
    """

    conv: nn.Conv2d

    def outputs(
        self, x: Tensor, weight: Tensor, bias: Tensor | None, added: Tensor | None, activation: Activation
    ) -> tuple[Tensor, Tensor]:
        """The convolution with all that follows it, [B, O, h, w], and the form of the weights for its gradients."""
        geometry = Geometry.of(self.conv, x)
        kernels, after = geometry.widened(weight), FUSED[activation]
        arguments = (bias, geometry.after, geometry.stride, geometry.dilation, geometry.groups)
        operator = torch.ops.mkldnn._convolution_pointwise
        misread = is_misread(x, kernels.shape[3], geometry.stride[1], geometry.after[1])
        has_no_sum = activation == "relu6" or (self.conv.groups > 1 and x.dtype != torch.float32)  # in oneDNN
        if misread or (added is not None and has_no_sum):
            x = F.pad(x, (0, geometry.stride[1])) if misread else x
            out = operator(x, kernels, *arguments, *FUSED["none"], None)
            out = out[..., :1].contiguous(memory_format=torch.channels_last) if misread else out
            out = out if added is None else out.add_(added)
            return activated(out, activation, inplace=True), weight
        if added is None:
            return operator(x, kernels, *arguments, *after, None), weight
        unary = None if activation == "none" else activation
        return operator.binary(x, added, kernels, *arguments, "add", 1.0, unary, [], None), weight

    def gradients(
        self, x: Tensor, weight: Tensor, gradient: Tensor, *, to_x: bool, to_weight: bool
    ) -> tuple[Tensor | None, Tensor | None]:
        """Towards x and the weights, of what `outputs` gave."""
        return convolution_gradients(self.conv, x, weight, gradient, to_x=to_x, to_weight=to_weight)


@dataclass(frozen=True)
class _ByWinograd:
    """In fp32, where `pays_in_training` says so; methods as those of `_Direct`."""

    size: int = 4

    def outputs(
        self, x: Tensor, weight: Tensor, bias: Tensor, added: Tensor | None, activation: Activation
    ) -> tuple[Tensor, Tensor]:
        winograd = Winograd.of(weight, self.size)
        at_once = activation == "relu" and added is None
        (out,) = winograd([x], bias, relu=at_once)
        out = out if added is None else out.add_(added)
        return out if at_once else activated(out, activation, inplace=True), winograd.kernels

    def gradients(
        self, x: Tensor, kernels: Tensor, gradient: Tensor, *, to_x: bool, to_weight: bool
    ) -> tuple[Tensor | None, Tensor | None]:
        winograd = Winograd(kernels, self.size)
        to_maps, found_weight = winograd.gradients([x], [gradient], to_maps=to_x, to_weight=to_weight)
        return None if to_maps is None else to_maps[0], found_weight


class _FoldedConvNorm(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        added: Tensor | None,
        weight: Tensor,
        gain: Tensor,
        shift: Tensor,
        mean: Tensor,
        variance: Tensor,
        epsilon: float,
        activation: Activation,
        algorithm: _Direct | _ByWinograd,
    ) -> Tensor:
        dtype = arithmetic(x)
        norm = _Norm.of(gain, mean, variance, epsilon)
        # In ordinary memory oneDNN has no sum with ReLU in bf16.
        x = x.to(dtype, memory_format=torch.channels_last)
        added = None if added is None else added.to(dtype, memory_format=torch.channels_last)
        folded, bias = _scaled(weight, norm.scale, dtype), norm.bias(shift).to(dtype)  # [O, C / groups, k, k], [O]
        out, weights = algorithm.outputs(x, folded, bias, added, activation)
        ctx.save_for_backward(
            x, weight, weights, norm.scale, norm.inverse, norm.mean, None if activation == "none" else out
        )
        ctx.algorithm, ctx.activation, ctx.has_added = algorithm, activation, added is not None
        return out

    @staticmethod
    @differentiable_once
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, weights, scale, inverse, mean, out = ctx.saved_tensors
        needs_x, _, *needs = ctx.needs_input_grad[:5]
        if out is not None:
            gradient = before_activation(gradient, out, ctx.activation)
        to_x, to_folded = ctx.algorithm.gradients(x, weights, gradient, to_x=needs_x, to_weight=any(needs[:2]))
        of_layer = _Norm(scale, inverse, mean).gradients(weight, to_folded, gradient, needs)
        return to_x, gradient if ctx.has_added else None, *of_layer, None, None, None, None, None


@dataclass(frozen=True, eq=False)
class _Norm:
    """What a norm in evaluation mode does to each of O channels.

    Attributes:
        scale: [O], what it multiplies by, gain included.
        inverse: [O], 1 / its standard deviation.
        mean: [O], what it subtracts first.
    """

    scale: Tensor
    inverse: Tensor
    mean: Tensor

    @classmethod
    def of(cls, gain: Tensor, mean: Tensor, variance: Tensor, epsilon: float) -> _Norm:
        """From the norm's parameters [O] and statistics [O]."""
        inverse = (variance + epsilon).rsqrt()
        return cls(gain * inverse, inverse, mean)

    def bias(self, shift: Tensor) -> Tensor:
        """[O] what is added to the folded convolution."""
        return torch.addcmul(shift, self.mean, self.scale, value=-1)

    def gradients(
        self, weight: Tensor, to_folded: Tensor | None, gradient: Tensor, needs: Sequence[bool]
    ) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        """Towards the convolution's weights, the gain and the shift, each where it is needed.

        Args:
            weight: [O, C / groups, k, k].
            to_folded: the gradient towards weight * scale, None where neither weights nor gain need one.
            gradient: [B, O, h, w] of what the convolution and the norm gave.
            needs: weights, gain, shift.
        """
        needs_weight, needs_gain, needs_shift = needs
        to_weight = to_gain = None
        to_bias = gradient.sum((0, 2, 3)).float() if needs_gain or needs_shift else None
        if to_folded is not None:
            to_folded = to_folded.float()
            if needs_gain and to_bias is not None:
                product = (to_folded * weight).sum(dim=(1, 2, 3))
                to_gain = torch.addcmul(product, self.mean, to_bias, value=-1) * self.inverse
            if needs_weight:
                to_weight = to_folded.mul_(self.scale[:, None, None, None])
        return to_weight, to_gain, to_bias if needs_shift else None


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
