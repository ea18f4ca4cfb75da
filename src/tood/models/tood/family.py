"""The family's record."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from tood.alignment import TaskAlignedCriterionConfig
from tood.models import examples
from tood.models.backbones import EfficientNetLiteConfig
from tood.models.family import Family
from tood.models.tood import weights
from tood.models.tood.config import TOOD, TOODConfig
from tood.models.tood.head import THeadConfig


def _examples() -> Mapping[str, TOODConfig]:
    head = THeadConfig(width=16, interactive_layers=2, norm_groups=4)
    plain = TOODConfig(classes=7, backbone=examples.BACKBONE, neck=examples.NECK, head=head, input=examples.INPUT)
    deformable = replace(
        plain,
        backbone=replace(examples.BACKBONE, deformable_stages=(1,)),
        head=replace(head, deformable_layers=1, deform_groups=2, anchor="based"),
    )
    mobile = replace(plain, backbone=EfficientNetLiteConfig(outputs=(0, 1)))
    return {"plain": plain, "deformable": deformable, "mobile": mobile}


FAMILY = Family(TOODConfig, TOOD, weights, criteria=(TaskAlignedCriterionConfig,), examples=_examples)
