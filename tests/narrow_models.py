"""Narrow networks of every kind and family, with weights of which none is as it was initialised."""

from __future__ import annotations

from dataclasses import replace
from typing import TypeVar

import torch
from torch import nn

from golden_values import NARROW
from tood.models import FAMILIES, AnyDetector, AnyModelConfig
from tood.models.atss import ATSSConfig, ATSSHeadConfig
from tood.models.backbones import ResNetConfig
from tood.models.common.rep_block import RepBlock
from tood.models.gfl import GFLConfig, GFLHeadConfig
from tood.models.paa import PAAConfig, PAAHeadConfig

# One block a stage: a stage's first block has its stride, its shortcut and, where it is deformable, its offsets.
SHORT = ResNetConfig(width=8, stem_width=8, blocks=(1, 1, 1, 1))
RESNEXT = ResNetConfig(
    width=16, stem_width=8, blocks=(1, 1, 2, 1), groups=4, width_per_group=2, deformable_stages=(2, 3)
)
FREE = replace(NARROW, backbone=SHORT)
BASED = replace(FREE, head=replace(NARROW.head, anchor="based"))
# As in the golden file: DCNv2 in C3-C5 and in the first two layers of the head.
DEFORMABLE = replace(
    NARROW, backbone=replace(SHORT, deformable_stages=(1, 2, 3)), head=replace(NARROW.head, deformable_layers=2)
)
RESNEXT_DEFORMABLE = replace(DEFORMABLE, backbone=RESNEXT)
NARROW_ATSS = ATSSConfig(classes=7, backbone=SHORT, neck=NARROW.neck, head=ATSSHeadConfig(width=32, norm_groups=8))
NARROW_GFL = GFLConfig(classes=7, backbone=SHORT, neck=NARROW.neck, head=GFLHeadConfig(width=32, norm_groups=8))
NARROW_PAA = PAAConfig(classes=7, backbone=SHORT, neck=NARROW.neck, head=PAAHeadConfig(width=32, norm_groups=8))

# What every family gives as its examples: tests of what holds for all families run over these.
EXAMPLES: dict[str, AnyModelConfig] = {
    f"{family.name}-{name}": config for family in FAMILIES for name, config in family.examples().items()
}

ModelT = TypeVar("ModelT", bound=AnyDetector)


def lively(model: ModelT) -> ModelT:
    """The model, in evaluation mode, with offsets of about one cell, and scores and boxes far from where they start."""
    generator = torch.Generator().manual_seed(0)
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.normal_(module.weight, std=module.weight[0].numel() ** -0.5, generator=generator)
            if module.bias is not None:
                nn.init.normal_(module.bias, std=0.3, generator=generator)
        if isinstance(module, RepBlock) and module.alpha is not None:
            nn.init.uniform_(module.alpha, -1.5, -0.5, generator=generator)
        _lively_norm(module, generator)
    for level, scale in enumerate(getattr(model.head, "scales", ())):
        nn.init.constant_(scale, 0.8 + level / 10)
    return model.eval()


def lively_norms(module: nn.Module) -> None:
    """Puts a module into evaluation mode, with norms whose weights and statistics are far from where they start."""
    generator = torch.Generator().manual_seed(0)
    for part in module.eval().modules():
        _lively_norm(part, generator)


def _lively_norm(module: nn.Module, generator: torch.Generator) -> None:
    if isinstance(module, nn.BatchNorm2d | nn.GroupNorm):
        nn.init.uniform_(module.weight, 0.5, 1.5, generator=generator)
        nn.init.normal_(module.bias, std=0.2, generator=generator)
    if isinstance(module, nn.BatchNorm2d):
        assert module.running_mean is not None
        assert module.running_var is not None
        nn.init.normal_(module.running_mean, std=0.2, generator=generator)
        nn.init.uniform_(module.running_var, 0.5, 1.5, generator=generator)
