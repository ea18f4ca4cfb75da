"""ATSS's named models: each a function that returns a configuration, and its card."""

from __future__ import annotations

from tood.alignment import ATSSCriterionConfig
from tood.models.atss.config import ATSSConfig
from tood.zoo.card import ModelCard, on_mmdetection


def atss_r50_fpn_1x() -> ATSSConfig:
    """The rival of TOOD's main model, on the same backbone and neck: 39.4 AP on COCO minival after 12 epochs."""
    return ATSSConfig()


CARDS: tuple[ModelCard, ...] = (
    ModelCard(
        "atss_r50_fpn_1x",
        atss_r50_fpn_1x,
        "1x",
        published_ap=39.4,
        criterion=ATSSCriterionConfig,
        weights=on_mmdetection("atss/atss_r50_fpn_1x_coco/atss_r50_fpn_1x_coco_20200209", "985f7bd0"),
    ),
)
