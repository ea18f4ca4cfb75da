"""The named models of the family: each a function that returns a configuration."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from tood.alignment import ATSSCriterionConfig
from tood.models.atss.config import ATSSConfig
from tood.models.family import NamedModel


def atss_r50_fpn_1x() -> ATSSConfig:
    """The rival of TOOD's main model, on the same backbone and neck: 39.4 AP on COCO minival after 12 epochs."""
    return ATSSConfig()


MODELS: Mapping[str, NamedModel] = MappingProxyType(
    {"atss_r50_fpn_1x": NamedModel(atss_r50_fpn_1x, "1x", 39.4, criterion=ATSSCriterionConfig)}
)
