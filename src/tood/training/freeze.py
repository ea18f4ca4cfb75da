"""Parts of a network that training leaves as they are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from torch import nn

from tood.errors import ToodError
from tood.training.config import RunConfig


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


def thawed(config: RunConfig, objects: int) -> RunConfig:
    """The run with its frozen stages decided by how much there is to learn from, so that `thaw_from` is settled.

    Args:
        config: of the run.
        objects: that it can learn from.
    """
    if config.thaw_from is None:
        return config
    settled = replace(config, thaw_from=None)
    if objects < config.thaw_from:
        return settled
    return replace(settled, model=replace(config.model, backbone=config.model.backbone.thawed()))
