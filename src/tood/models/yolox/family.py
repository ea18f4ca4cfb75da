"""The family's record."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from tood.alignment import SimOTACriterionConfig
from tood.models import examples
from tood.models.backbones import CSPDarknetConfig, RepVGGConfig
from tood.models.family import Family
from tood.models.necks import CSPPAFPNConfig
from tood.models.yolox import weights
from tood.models.yolox.config import INPUT, YOLOX, YOLOXConfig
from tood.models.yolox.head import YOLOXHeadConfig


def _examples() -> Mapping[str, YOLOXConfig]:
    darknet = CSPDarknetConfig(width=8, blocks=(1, 1, 1, 1))
    plain = YOLOXConfig(
        classes=7,
        backbone=darknet,
        neck=CSPPAFPNConfig(blocks=1),
        head=YOLOXHeadConfig(width=16),
        input=replace(INPUT, short=examples.INPUT.short, long=examples.INPUT.long),
    )
    depthwise = replace(
        plain,
        backbone=replace(darknet, depthwise=True),
        neck=CSPPAFPNConfig(blocks=1, depthwise=True),
        head=YOLOXHeadConfig(width=16, tower_block="depthwise"),
    )
    pai = replace(
        plain,
        backbone=RepVGGConfig(widths=(8, 8, 16, 32, 64), blocks=(2, 2, 2, 2)),
        neck=CSPPAFPNConfig(blocks=1, gsconv="part", fusion="asff"),
        head=YOLOXHeadConfig(width=16, interactive_layers=2, norm_groups=4, attention_reduction=8),
    )
    light = replace(
        plain,
        neck=CSPPAFPNConfig(blocks=1, gsconv="all", fusion="asff_sim"),
        head=YOLOXHeadConfig(width=16, tower_block="rep"),
    )
    return {"plain": plain, "depthwise": depthwise, "pai": pai, "light": light}


FAMILY = Family(YOLOXConfig, YOLOX, weights, criteria=(SimOTACriterionConfig,), examples=_examples)
