"""When an operator may stand in for modules: the one place that decides it.

An operator computes what some modules would, without calling them. Whoever waits for a module to be called (hooks,
parametrisations, pruning), changed what it does (subclasses, wrapped layers, a forward of its own), or follows the
operations themselves (compilers, exporters, transforms, tensors of other kinds) must get the plain PyTorch that the
operator stands for.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from types import FunctionType
from typing import Any, cast

import torch
import torch.nn.modules.module as every_module
from torch import Tensor, nn
from torch.autograd import forward_ad

_PLAIN: ContextVar[bool] = ContextVar("tood.ops.plain", default=False)


@contextmanager
def plain() -> Iterator[None]:
    """Within it, in this thread, every operator gives way to the plain PyTorch that it stands for.

    For comparisons, for derivatives beyond the first, and for whoever wants to step through a network.
    """
    token = _PLAIN.set(True)
    try:
        yield
    finally:
        _PLAIN.reset(token)


def may_stand_in(modules: Iterable[tuple[nn.Module, type[nn.Module]]], tensors: Iterable[Tensor | None]) -> bool:
    """Whether an operator may compute what these modules would.

    Args:
        modules: all that are not called, each with the class whose forward the operator computes.
        tensors: what comes in beside the modules' own weights.
    """
    return (
        not is_followed()
        and all(is_ordinary(tensor) for tensor in tensors)
        and all(is_untouched(module, kind) for module, kind in modules)
    )


def is_followed() -> bool:
    """Whether someone follows single operations or all modules, or asked for plain PyTorch."""
    return (
        torch.compiler.is_compiling()  # first: compilers look no further; `torch.export` says so too
        or _PLAIN.get()
        or torch._C._is_tracing()
        or torch._C._are_functorch_transforms_active()
        or forward_ad._current_level >= 0
        or bool(every_module._global_forward_hooks or every_module._global_forward_pre_hooks)
        or bool(every_module._global_backward_hooks or every_module._global_backward_pre_hooks)
    )


def is_ordinary(tensor: Tensor | None) -> bool:
    """Whether it is a tensor of numbers in memory: no subclass, and not on the device `meta`; None is no obstacle."""
    return tensor is None or (type(tensor) in (Tensor, nn.Parameter) and not tensor.is_meta)


def is_untouched(module: nn.Module, kind: type[nn.Module]) -> bool:
    """Whether calling the module runs the forward of the class `kind` on its own weights, and nothing else.

    PyTorch's own layers are to be exactly of the class (a parametrised one is of another). Of this package's blocks a
    subclass will do that keeps the methods of `kind`, but for those that the class lists in `REPLACEABLE`: operators
    call these.
    """
    own, asked = cast(Any, type(module)), cast(Any, kind)
    if own is not kind and (kind.__module__.startswith("torch.") or not _keeps_methods(own, asked)):
        return False
    return not (
        is_awaited(module)
        # What prunes or normalises weights puts a computed tensor in a parameter's place.
        or any(type(value) is Tensor for value in vars(module).values())
        or not all(map(is_ordinary, module._parameters.values()))
        or not all(map(is_ordinary, module._buffers.values()))
    )


def is_awaited(module: nn.Module) -> bool:
    """Whether somebody waits for the module to be called, or gave it methods of its own."""
    if module._forward_hooks or module._forward_pre_hooks or module._backward_hooks or module._backward_pre_hooks:
        return True
    if module._compiled_call_impl is not None:
        return True
    shadowed = _methods(cast(Any, type(module))).intersection(vars(module))
    return bool(shadowed) and not shadowed <= getattr(module, "REPLACEABLE", frozenset())


@cache
def _keeps_methods(own: type, kind: type) -> bool:
    names = _methods(kind) - getattr(kind, "REPLACEABLE", frozenset()) - {"__init__"}
    return issubclass(own, kind) and all(getattr(own, name) is getattr(kind, name) for name in names)


@cache
def _methods(kind: type) -> frozenset[str]:
    """Names of the class's own and inherited methods."""
    bases = [base for base in kind.__mro__ if issubclass(base, nn.Module)]
    return frozenset(name for base in bases for name, value in vars(base).items() if isinstance(value, FunctionType))
