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
    darknet = CSPDarknetConfig(width=8, blocks=(1, 1, 1), outputs=(0, 1, 2))
    plain = YOLOXConfig(
        classes=7,
        backbone=darknet,
        neck=CSPPAFPNConfig(blocks=1),
        head=YOLOXHeadConfig(width=16, tower_layers=1),
        input=replace(INPUT, short=examples.INPUT.short, long=examples.INPUT.long),
    )
    depthwise = replace(
        plain,
        backbone=replace(darknet, depthwise=True),
        neck=CSPPAFPNConfig(blocks=1, depthwise=True, gsconv="part", fusion="asff_sim"),
        head=replace(plain.head, tower_block="depthwise"),
    )
    pai = replace(
        plain,
        backbone=RepVGGConfig(widths=(8, 8, 16, 32), blocks=(1, 2, 1), outputs=(0, 1, 2)),
        neck=CSPPAFPNConfig(blocks=1, gsconv="all", fusion="asff"),
        head=replace(plain.head, tower_block="rep", interactive_layers=2, norm_groups=4, attention_reduction=8),
    )
    return {"plain": plain, "depthwise": depthwise, "pai": pai}


FAMILY = Family(YOLOXConfig, YOLOX, weights, criteria=(SimOTACriterionConfig,), examples=_examples)
