"""The family's record."""

from __future__ import annotations

from collections.abc import Mapping

from tood.models import examples
from tood.models.family import Family
from tood.models.gfl import weights
from tood.models.gfl.config import GFL, GFLConfig
from tood.models.gfl.criterion import GFLCriterionConfig
from tood.models.gfl.head import GFLHeadConfig


def _examples() -> Mapping[str, GFLConfig]:
    head = GFLHeadConfig(width=16, tower_layers=2, norm_groups=4, bins=9)
    return {
        "plain": GFLConfig(classes=7, backbone=examples.BACKBONE, neck=examples.NECK, head=head, input=examples.INPUT)
    }


FAMILY = Family(GFLConfig, GFL, weights, criteria=(GFLCriterionConfig,), examples=_examples)
