"""The family's record."""

from __future__ import annotations

from collections.abc import Mapping

from tood.alignment import ATSSCriterionConfig
from tood.models import examples
from tood.models.atss import weights
from tood.models.atss.config import ATSS, ATSSConfig
from tood.models.atss.head import ATSSHeadConfig
from tood.models.family import Family


def _examples() -> Mapping[str, ATSSConfig]:
    head = ATSSHeadConfig(width=16, tower_layers=2, norm_groups=4)
    return {
        "plain": ATSSConfig(classes=7, backbone=examples.BACKBONE, neck=examples.NECK, head=head, input=examples.INPUT)
    }


FAMILY = Family(ATSSConfig, ATSS, weights, criteria=(ATSSCriterionConfig,), examples=_examples)
