"""The family's record."""

from __future__ import annotations

from collections.abc import Mapping

from tood.alignment import VarifocalCriterionConfig
from tood.input import InputConfig
from tood.models.backbones import CSPRepResNetConfig
from tood.models.family import Family
from tood.models.necks import CSPPANConfig
from tood.models.ppyoloe import weights
from tood.models.ppyoloe.config import PPYOLOE, PPYOLOEConfig
from tood.models.ppyoloe.head import ETHeadConfig


def _examples() -> Mapping[str, PPYOLOEConfig]:
    plus = PPYOLOEConfig(
        classes=7,
        backbone=CSPRepResNetConfig(widths=(8, 16, 24), blocks=(1, 1), alpha=True, outputs=(0, 1)),
        neck=CSPPANConfig(widths=(12, 16), blocks=1),
        head=ETHeadConfig(bins=5),
        input=InputConfig(short=64, long=96, mean=(0.0, 0.0, 0.0), std=(255.0, 255.0, 255.0)),
    )
    legacy = PPYOLOEConfig(
        classes=7,
        backbone=CSPRepResNetConfig(widths=(8, 16, 24, 32), blocks=(1, 2, 1), outputs=(0, 1, 2)),
        neck=CSPPANConfig(widths=(8, 12, 16), blocks=2),
        input=InputConfig(short=64, long=96, fit="stretch", interpolation="cubic"),
    )
    return {"plus": plus, "legacy": legacy}


FAMILY = Family(PPYOLOEConfig, PPYOLOE, weights, criteria=(VarifocalCriterionConfig,), examples=_examples)
