"""What follows a norm: nothing, ReLU, or ReLU6."""

from __future__ import annotations

from typing import Literal, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor

Activation: TypeAlias = Literal["none", "relu", "relu6"]

# As oneDNN's convolutions take them: a name and its numbers.
FUSED: dict[Activation, tuple[str, list[float]]] = {
    "none": ("none", []),
    "relu": ("relu", []),
    "relu6": ("hardtanh", [0.0, 6.0]),
}


def activation_of(asked: Activation | bool) -> Activation:
    """The activation, where True and False stand for ReLU and nothing."""
    if isinstance(asked, bool):
        return "relu" if asked else "none"
    return asked


def activated(x: Tensor, activation: Activation, inplace: bool = False) -> Tensor:
    """[...] through the activation, where asked in its own memory."""
    if activation == "relu":
        return F.relu(x, inplace=inplace)
    return F.relu6(x, inplace=inplace) if activation == "relu6" else x


def before_activation(gradient: Tensor, out: Tensor, activation: Activation) -> Tensor:
    """The gradient towards what came into an activation, from that of what it gave, `out`; both [...]."""
    if activation == "relu":
        return torch.ops.aten.threshold_backward(gradient, out, 0)  # type: ignore[no-any-return]
    if activation == "relu6":
        return torch.ops.aten.hardtanh_backward(gradient, out, 0, 6)  # type: ignore[no-any-return]
    return gradient
