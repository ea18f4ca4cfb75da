"""What operators need to know of PyTorch: its arithmetic, its CPU library, derivatives of functions of our own."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any, TypeVar

import torch
from torch import Tensor

Function = TypeVar("Function", bound=Callable[..., Any])

_ONCE = (
    b"tood's faster operators have first derivatives alone: for higher ones compute the loss within "
    b"`with tood.ops.plain():`"
)


def arithmetic(x: Tensor) -> torch.dtype:
    """What a convolution of `x` computes in: autocast's dtype where that is on, else its own."""
    device = x.device.type
    lowered = torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device)
    return torch.get_autocast_dtype(device) if lowered else x.dtype


def constants(values: Sequence[float], like: Tensor) -> Tensor:
    """[K] numbers in a tensor's dtype and on its device; filled in there, as copying would wait for the device."""
    if like.device.type == "cpu":
        return like.new_tensor(values)
    return torch.stack([like.new_full((), value) for value in values])


def in_own_dtype(function: Function) -> Function:
    """The function, but with products in their operands' dtype also where a `backward()` stands in CPU autocast."""
    wrapped: Function = torch.autocast("cpu", enabled=False)(function)
    return wrapped


def differentiable_once(backward: Function) -> Function:
    """A `backward` whose results cannot be differentiated: whoever does gets an error that says what to do instead.

    PyTorch's `once_differentiable` lets it pass where the gradient that came in needs none itself, as in a penalty on
    gradients, whose own gradient would then be wrong without a word.
    """

    @functools.wraps(backward)
    def wrapper(ctx: Any, *gradients: Any) -> Any:
        with torch.no_grad():
            results = backward(ctx, *gradients)
        if not torch.is_grad_enabled():
            return results
        several = results if isinstance(results, tuple) else (results,)
        refuse = torch._C._functions.DelayedError(_ONCE, len(several))
        return refuse(*[None if result is None else result.detach().requires_grad_() for result in several])  # type: ignore[arg-type]

    return wrapper  # type: ignore[return-value]


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
