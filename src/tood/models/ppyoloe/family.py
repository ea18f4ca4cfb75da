"""The family's record."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from tood.alignment import VarifocalCriterionConfig
from tood.models.backbones import CSPRepResNetConfig
from tood.models.family import Family
from tood.models.necks import CSPPANConfig
from tood.models.ppyoloe import weights
from tood.models.ppyoloe.config import PLUS_INPUT, PPYOLOE, PPYOLOEConfig
from tood.models.ppyoloe.head import ETHeadConfig


def _examples() -> Mapping[str, PPYOLOEConfig]:
    plain = PPYOLOEConfig(
        classes=7,
        backbone=CSPRepResNetConfig(widths=(8, 8, 12, 16), blocks=(1, 1, 1), alpha=True, outputs=(0, 1, 2)),
        neck=CSPPANConfig(widths=(8, 8, 12), blocks=1),
        head=ETHeadConfig(bins=5),
        input=replace(PLUS_INPUT, short=64, long=96),
    )
    return {"plain": plain}


FAMILY = Family(PPYOLOEConfig, PPYOLOE, weights, criteria=(VarifocalCriterionConfig,), examples=_examples)
