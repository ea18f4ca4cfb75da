"""A convolution, its BatchNorm and an activation: what most families after 2021 are made of."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Literal, TypeAlias, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tood.ops import CannotFuse, InferenceConv2d, fused_conv, known

Activation: TypeAlias = Literal["none", "relu", "silu"]
"""What follows a norm."""

ModuleT = TypeVar("ModuleT", bound=nn.Module)

NormMaker: TypeAlias = Callable[[int], nn.BatchNorm2d]
"""Makes the BatchNorm of so many channels, with a family's own epsilon and momentum."""


class NarrowProjection(nn.Conv2d):
    """A 1x1 convolution that takes its stride first.

    oneDNN's own (PyTorch 2.13) corrupts the heap in its backward pass at fewer than 16 channels, stride 2 and
    channels-last memory.
    """

    def forward(self, input: Tensor) -> Tensor:
        """[B, C, H, W] -> [B, D, ceil(H / stride), ceil(W / stride)]."""
        rows, columns = self.stride
        return F.conv2d(input[..., ::rows, ::columns], self.weight, self.bias)


class ConvNormAct(nn.Module):
    """A convolution that keeps the map's size but for its stride, BatchNorm, and the activation.

    Args:
        inputs, outputs: channels.
        kernel: side of the kernel, odd.
        stride, groups: of the convolution.
        activation: what follows.
        norm: makes the BatchNorm.
        bias: whether the convolution has a bias, which the norm then takes away again.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: int,
        stride: int = 1,
        groups: int = 1,
        activation: Activation = "silu",
        norm: NormMaker = nn.BatchNorm2d,
        bias: bool = False,
    ) -> None:
        super().__init__()
        convolution = NarrowProjection if kernel == 1 and stride > 1 and inputs < 16 else nn.Conv2d
        self.conv = convolution(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=bias)
        self.norm = norm(outputs)
        self.activation: Activation = activation

    def forward(self, x: Tensor) -> Tensor:
        """[B, inputs, H, W] -> [B, outputs, ceil(H / stride), ceil(W / stride)]."""
        return activated(self.norm(self.conv(x)), self.activation)

    def fuse(self, dtype: torch.dtype) -> InferenceConv2d:
        """The same as one operation, to predict with; raises `CannotFuse` where a layer is of another kind."""
        known(self, ConvNormAct)
        conv, activation = known_conv(self.conv), self.activation
        return fused_conv(conv, self.norm, activation == "relu", dtype, silu=activation == "silu")


def activated(x: Tensor, activation: Activation) -> Tensor:
    """[...] through the activation."""
    if activation == "relu":
        return x.relu()
    return F.silu(x) if activation == "silu" else x


def known_conv(conv: nn.Module) -> nn.Conv2d:
    """A convolution as a `ConvNormAct` was built of; raises `CannotFuse` where it is none."""
    return known(conv, NarrowProjection if isinstance(conv, NarrowProjection) else nn.Conv2d)


def fuse_part(part: nn.Module, dtype: torch.dtype) -> nn.Module:
    """What a part says of itself; of a sequence or list what each of its layers says; of a convolution it alone.

    Raises:
        CannotFuse: if it says nothing, or holds a part of another kind.
    """
    if isinstance(part, nn.Sequential):
        return nn.Sequential(*(fuse_part(layer, dtype) for layer in known(part, nn.Sequential)))
    if isinstance(part, nn.ModuleList):
        return nn.ModuleList(fuse_part(layer, dtype) for layer in part)
    if isinstance(part, nn.Identity):
        return known(part, nn.Identity)
    if isinstance(part, nn.Conv2d):
        return fused_conv(known(part, nn.Conv2d), None, False, dtype)
    fuse: Callable[[torch.dtype], nn.Module] | None = getattr(part, "fuse", None)
    if fuse is None:
        raise CannotFuse(f"a {type(part).__name__}")
    return fuse(dtype)


def with_fused_parts(module: ModuleT, kind: type[nn.Module], dtype: torch.dtype) -> ModuleT:
    """A copy of a module that has no weights of its own, with the same forward over parts that only predict.

    Args:
        module: of the class `kind`.
        kind: whose forward goes over the parts.
        dtype: what convolutions compute in.

    Raises:
        CannotFuse: if it, or one of its parts, is of another kind.
    """
    known(module, kind)
    copied = copy.copy(module)
    for name, value in vars(module).items():
        if isinstance(value, dict):  # of parts and hooks: a change of the network's is not to reach its copy
            vars(copied)[name] = value.copy()
    for name, part in module.named_children():
        copied._modules[name] = fuse_part(part, dtype)
    return copied
