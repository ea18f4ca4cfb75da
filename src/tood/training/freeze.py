"""Parts of a network that training leaves as they are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from torch import nn

from tood.errors import ToodError
from tood.models.backbones import EfficientNetLiteConfig, ResNetConfig
from tood.models.common.detector import BackboneConfig


def freeze_parts(model: nn.Module, names: Sequence[str]) -> list[nn.Module]:
    """Takes parts of a network out of training.

    Args:
        model: the network.
        names: of its parts, such as "backbone", "neck" or "backbone.layer1".

    Returns:
        The parts, which belong in evaluation mode: their BatchNorms keep their statistics.

    Raises:
        ToodError: if there is no such part, or nothing is left to learn.
    """
    parts = []
    for name in names:
        part: nn.Module = model
        for i, child in enumerate(name.split(".")):
            children = dict(part.named_children())
            if child not in children:
                where = ".".join(name.split(".")[:i]) or "the model"
                raise ToodError(
                    f"freeze has '{name}', but {where} has no part '{child}': it has {', '.join(children) or 'none'}"
                )
            part = children[child]
        parts.append(part.requires_grad_(False))
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise ToodError(f"freeze ({', '.join(names)}) leaves nothing to learn: leave a part out of it")
    return parts


def thawed(backbone: BackboneConfig) -> BackboneConfig:
    """The backbone with its stem alone at rest, where more of it is to be."""
    if isinstance(backbone, EfficientNetLiteConfig | ResNetConfig):
        return replace(backbone, frozen_stages=min(backbone.frozen_stages, 0))
    return backbone
