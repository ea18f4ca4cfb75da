"""A norm and the activation after it."""

from __future__ import annotations

from torch import Tensor, nn

from tood.ops.activation import Activation, activated
from tood.ops.guard import is_awaited, is_followed


def group_norm_relu(norm: nn.Module, x: Tensor) -> Tensor:
    """ReLU(norm(x)): [B, C, H, W] -> the same shape."""
    return relu_of(norm, norm(x))


def relu_of(norm: nn.Module, out: Tensor, activation: Activation = "relu") -> Tensor:
    """ReLU, or another activation, of what a norm gave: in its memory, unless somebody else may have kept that."""
    unseen = type(norm) in (nn.BatchNorm2d, nn.GroupNorm) and not is_awaited(norm) and not is_followed()
    return activated(out, activation, inplace=unseen)
