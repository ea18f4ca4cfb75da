"""When operators of our own may stand for modules: on what PyTorch, in what arithmetic, in place of which modules."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

Function = TypeVar("Function", bound=Callable[..., Any])


def arithmetic(x: Tensor) -> torch.dtype:
    """What a convolution of `x` computes in: autocast's dtype where that is on, else its own."""
    device = x.device.type
    lowered = torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device)
    return torch.get_autocast_dtype(device) if lowered else x.dtype


def in_own_dtype(function: Function) -> Function:
    """Its products in their operands' dtype, also where a `backward()` stands inside CPU autocast."""
    wrapped: Function = torch.autocast("cpu", enabled=False)(function)
    return wrapped


def is_bare(*modules: nn.Module) -> bool:
    """Whether nobody waits for the modules to be called, and no compiler follows, which wants plain operations."""
    hooks = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    return not torch.compiler.is_compiling() and not any(getattr(module, name) for module in modules for name in hooks)


def is_usual_3x3(conv: nn.Conv2d) -> bool:
    """Whether it is a convolution of padding 1 without dilation or groups, of the same stride both ways."""
    usual = (conv.kernel_size, conv.padding, conv.dilation, conv.groups) == ((3, 3), (1, 1), (1, 1), 1)
    return usual and conv.stride[0] == conv.stride[1]


def is_plain_3x3(conv: nn.Conv2d) -> bool:
    """Whether it is an ordinary one of these, of stride 1, with zeros outside of the map."""
    ordinary = type(conv) is nn.Conv2d and conv.padding_mode == "zeros"
    return ordinary and is_usual_3x3(conv) and conv.stride == (1, 1)


def fuses_convolutions(dtype: torch.dtype) -> bool:
    """Whether this PyTorch and CPU have the operators that PyTorch's own compiler fuses convolutions with on x86."""
    return (
        torch._C._get_mkldnn_enabled()
        and _has_operators()
        and (dtype == torch.float32 or (dtype == torch.bfloat16 and torch.ops.mkldnn._is_mkldnn_bf16_supported()))
    )


def products_are_exact() -> bool:
    """Whether PyTorch multiplies fp32 matrices in fp32 on a CPU, as it does unless it is told otherwise."""
    precision = getattr(getattr(torch.backends.mkldnn, "matmul", None), "fp32_precision", None)
    if precision is None:  # an older PyTorch
        return torch.get_float32_matmul_precision() == "highest"
    return precision in ("none", "ieee")


@cache
def _has_operators() -> bool:
    convolutions = ("_convolution_pointwise", "_convolution_pointwise_", "_reorder_convolution_weight")
    names = (*convolutions, "_is_mkldnn_bf16_supported")
    return torch.backends.mkldnn.is_available() and all(hasattr(torch.ops.mkldnn, name) for name in names)  # type: ignore[no-untyped-call]
