"""The family's record."""

from __future__ import annotations

from collections.abc import Mapping

from tood.models import examples
from tood.models.family import Family
from tood.models.paa import weights
from tood.models.paa.config import PAA, PAAConfig
from tood.models.paa.criterion import PAACriterionConfig
from tood.models.paa.head import PAAHeadConfig


def _examples() -> Mapping[str, PAAConfig]:
    head = PAAHeadConfig(width=16, tower_layers=2, norm_groups=4)
    return {
        "plain": PAAConfig(classes=7, backbone=examples.BACKBONE, neck=examples.NECK, head=head, input=examples.INPUT)
    }


FAMILY = Family(PAAConfig, PAA, weights, criteria=(PAACriterionConfig,), examples=_examples)
