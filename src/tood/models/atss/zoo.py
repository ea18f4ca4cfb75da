"""The named models of the family: each a function that returns a configuration."""

from __future__ import annotations

from tood.models.atss.config import ATSSConfig


def atss_r50_fpn_1x() -> ATSSConfig:
    """The rival of TOOD's main model, on the same backbone and neck: 39.4 AP on COCO minival after 12 epochs."""
    return ATSSConfig()
