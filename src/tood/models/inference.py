"""A network that only predicts, made of what each part says of itself."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.nn.utils import parametrize

from tood.models.common.detector import BackboneNeckHead, DenseDetector
from tood.ops import CannotFuse, known


class InferenceDetector(BackboneNeckHead):
    """A network that only predicts; made by `for_inference`.

    Attributes:
        dtype: what its convolutions compute in; norms, boxes and scores always are fp32.
    """

    def __init__(self, backbone: nn.Module, neck: nn.Module, head: nn.Module, dtype: torch.dtype) -> None:
        super().__init__(backbone, neck, head)
        self.dtype = dtype


def fused_detector(model: DenseDetector[Any], dtype: torch.dtype) -> nn.Module:
    """A network whose parts say how they fuse, as one that only predicts.

    Raises:
        CannotFuse: if a part is not of the kind that it was built of.
    """
    known(model, DenseDetector)
    backbone, neck, head = (_fused(part, dtype) for part in (model.backbone, model.neck, model.head))
    return InferenceDetector(backbone, neck, head, dtype)


def _fused(part: nn.Module, dtype: torch.dtype) -> nn.Module:
    """What a part says of itself."""
    fuse: Callable[[torch.dtype], nn.Module] | None = getattr(part, "fuse", None)
    if fuse is None:
        raise CannotFuse(f"a {type(part).__name__}")
    return fuse(dtype)


def settled(model: DenseDetector[Any]) -> DenseDetector[Any]:
    """The network; if weights are computed from others, a copy in which they are what they are now in evaluation."""
    if not any(map(parametrize.is_parametrized, model.modules())):
        return model
    model = copy.deepcopy(model).eval()
    for module in list(model.modules()):
        if parametrize.is_parametrized(module):
            # PyTorch's `remove_parametrizations` would change the class, which the network's own module has too.
            values = {name: getattr(module, name).detach() for name in module.parametrizations}  # type: ignore[union-attr]
            module.__class__ = parametrize.type_before_parametrizations(module)
            del module.parametrizations
            for name, value in values.items():
                module.register_parameter(name, nn.Parameter(value, requires_grad=False))
    return model
