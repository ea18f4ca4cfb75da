"""Convolutions of a network that no longer learns: weights in oneDNN's own order, and in one pass what follows them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tood.ops.activation import FUSED, Activation, activated, activation_of
from tood.ops.arithmetic import fuses_convolutions
from tood.ops.conv_geometry import is_misread
from tood.ops.guard import is_untouched
from tood.ops.same_conv import SameConv2d, same_zeros
from tood.ops.weight_orders import OrderedWeights
from tood.ops.winograd import Winograd, is_wide

ModuleT = TypeVar("ModuleT", bound=nn.Module)

# Weights that take little memory in whatever form.
NARROW = 128 * 128 * 9


class InferenceConv2d(nn.Module):
    """A convolution, its bias, whatever is added to its output, and an activation.

    On a CPU with oneDNN bias, sum and activation are written with the output, and the weights lie in the order that it
    wants. 3x3 convolutions of many channels in fp32 take Winograd's way.

    Args:
        weight: [O, C / groups, k, k], with a norm's scale folded in.
        bias: [O], or None.
        stride, groups: of the convolution.
        padding: zeros on each side of a map; None: those of `SameConv2d`.
        activation: what follows; True and False stand for "relu" and "none".
        dtype: what is computed in, torch.float32 or torch.bfloat16.
        sees_all_levels: whether it works on the whole pyramid: its time is then worth more than its memory.
    """

    def __init__(
        self,
        weight: Tensor,
        bias: Tensor | None,
        stride: int,
        padding: int | None,
        groups: int,
        activation: Activation | bool,
        dtype: torch.dtype,
        sees_all_levels: bool = False,
    ) -> None:
        super().__init__()
        self.stride, self.padding, self.groups = stride, padding, groups
        self.activation = activation_of(activation)
        self.kernel = weight.shape[2]
        if padding is None:
            # One more zero after than before a map, or none more: see `Geometry` and `_zeros`.
            weight = F.pad(weight, (1, 0, 1, 0))
        self.columns = weight.shape[3]
        self.bias = None if bias is None else bias.detach().to(dtype, copy=True)
        self.weight: Tensor | None = None
        self.ordered: OrderedWeights | None = None
        self.winograd: Winograd | None = None
        on_cpu = weight.device.type == "cpu" and fuses_convolutions(dtype)
        if on_cpu and dtype == torch.float32 and (stride, padding, groups) == (1, 1, 1) and is_wide(weight):
            # F(4x4, 3x3) is a quarter faster and takes more than twice the memory for its weights.
            size = 4 if sees_all_levels or weight.numel() <= NARROW else 2
            self.winograd = Winograd.of(weight.detach().double(), size)
        elif on_cpu:
            plain = weight.detach().to(dtype, memory_format=torch.contiguous_format, copy=True)
            self.ordered = OrderedWeights(plain)
        else:
            self.weight = weight.detach().to(dtype, memory_format=torch.channels_last, copy=True)

    def forward(self, x: Tensor, added: Tensor | None = None, reused: Tensor | None = None) -> Tensor:
        """[B, C, H, W] in channels-last memory -> [B, O, h, w].

        `added`, of the output's shape, is overwritten; `reused`, too, may be, and given back.
        """
        if self.ordered is None:
            return self._by_winograd_or_pytorch(x, added, reused)
        zeros = self._zeros(x.shape)
        geometry = (zeros, (self.stride, self.stride), (1, 1), self.groups)
        operators = torch.ops.mkldnn
        if is_misread(x, self.columns, self.stride, zeros[1]):
            x = F.pad(x, (0, self.stride))
            weight, none = self.ordered.wanted_for(x, geometry), FUSED["none"]
            out: Tensor = operators._convolution_pointwise(x, weight, self.bias, *geometry, *none, None)[..., :1]
            out = out.contiguous(memory_format=torch.channels_last) if added is None else added.add_(out)
            return activated(out, self.activation, inplace=True)
        weight = self.ordered.wanted_for(x, geometry)
        if added is None:
            fused = FUSED[self.activation]
            return operators._convolution_pointwise(x, weight, self.bias, *geometry, *fused, None)  # type: ignore[no-any-return]
        after = "relu" if self.activation == "relu" else None  # oneDNN has no sum with the others
        out = operators._convolution_pointwise_.binary(
            added, x, weight, self.bias, *geometry, "add", 1.0, after, [], None
        )
        return out if after else activated(out, self.activation, inplace=True)

    def _by_winograd_or_pytorch(self, x: Tensor, added: Tensor | None, reused: Tensor | None) -> Tensor:
        if self.winograd is not None:
            at_once = self.activation == "relu" and added is None
            (out,) = self.winograd([x], self.bias, relu=at_once, reused=[reused])
            if at_once:
                return out
        else:
            assert self.weight is not None
            out = F.conv2d(x, self.weight, self.bias, self.stride, self._zeros(x.shape), 1, self.groups)
        if added is not None:
            out = added.add_(out)
        return activated(out, self.activation, inplace=True)

    def _zeros(self, shape: Sequence[int]) -> tuple[int, int]:
        """What is padded above and below, on the left and the right, of maps [B, C, H, W]."""
        if self.padding is not None:
            return self.padding, self.padding
        down, across = (same_zeros(side, self.kernel, self.stride)[0] for side in shape[2:])
        return down + 1, across + 1


class CannotFuse(Exception):  # noqa: N818 - no error: the network then predicts as it is
    """A network has a part whose copy for inference nobody knows."""


def known(module: object, kind: type[ModuleT]) -> ModuleT:
    """The module, whose call is known to run the forward of the class `kind` and nothing else.

    Raises:
        CannotFuse: if it is none.
    """
    if not isinstance(module, kind) or not is_untouched(module, kind):
        raise CannotFuse(f"a {type(module).__name__} where a {kind.__name__} was built")
    return module


def fused_conv(
    conv: nn.Conv2d,
    norm: nn.Module | None,
    activation: Activation | bool,
    dtype: torch.dtype,
    sees_all_levels: bool = False,
) -> InferenceConv2d:
    """A convolution with the BatchNorm that follows it, in evaluation mode, as one; None: no such norm.

    For the rest see `InferenceConv2d`.

    Raises:
        CannotFuse: if one of them is of another kind.
    """
    scale, bias = None, conv.bias
    if norm is not None:
        scale, bias = scale_and_shift(norm, conv)
    padding, stride = _square(conv)
    weight = conv.weight if scale is None else conv.weight.double() * scale.double()[:, None, None, None]
    return InferenceConv2d(weight.float(), bias, stride, padding, conv.groups, activation, dtype, sees_all_levels)


def _square(conv: nn.Conv2d) -> tuple[int | None, int]:
    """Padding and stride, as `InferenceConv2d` takes them.

    Raises:
        CannotFuse: if it is not alike down and across, has dilation, or has other than zeros around the map.
    """
    padding, stride, kernel = conv.padding[0], conv.stride[0], conv.kernel_size[0]
    usual = (conv.padding, conv.stride, conv.dilation) == ((padding, padding), (stride, stride), (1, 1))
    if not usual or isinstance(padding, str) or conv.padding_mode != "zeros":
        raise CannotFuse("a convolution of unusual geometry")
    if not isinstance(conv, SameConv2d):
        return padding, stride
    if conv.kernel_size != (kernel, kernel) or 1 < kernel < stride:
        raise CannotFuse("SAME padding of an unusual kernel")
    if kernel == 1 or (stride == 1 and kernel % 2 == 1):
        return kernel // 2, stride
    return None, stride


def scale_and_shift(norm: nn.Module, conv: nn.Conv2d) -> tuple[Tensor, Tensor]:
    """What a BatchNorm in evaluation mode does to each channel of a convolution: its factor and its summand, [C] each.

    The summand holds the convolution's own bias, if it has one.

    Raises:
        CannotFuse: if it is none, or has no statistics.
    """
    scale, shift = norm_scale_and_shift(norm)
    return scale, shift if conv.bias is None else shift + scale * conv.bias.float()


def norm_scale_and_shift(norm: nn.Module) -> tuple[Tensor, Tensor]:
    """What a BatchNorm in evaluation mode does to each channel: its factor and its summand, [C] each.

    Raises:
        CannotFuse: if it is none, or has no statistics.
    """
    evaluated = getattr(norm, "as_evaluated", None)  # a norm that trains in another way than it predicts
    norm = known(norm if evaluated is None else evaluated(), nn.BatchNorm2d)
    if norm.running_mean is None or norm.running_var is None or not norm.affine:
        raise CannotFuse("a norm without statistics or weights")
    scale = norm.weight.double() / (norm.running_var.double() + norm.eps).sqrt()
    return scale.float(), (norm.bias.double() - norm.running_mean.double() * scale).float()
