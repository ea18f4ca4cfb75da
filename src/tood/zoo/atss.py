"""ATSS's named models: each a function that returns a configuration, and its card.

The networks are MMDetection's. Of those with DCNv2 only the authors published figures, of networks that differ.
"""

from __future__ import annotations

from dataclasses import replace

from tood.alignment import ATSSCriterionConfig
from tood.models.atss.config import ATSSConfig
from tood.models.atss.head import ATSSHeadConfig
from tood.zoo.card import ModelCard, on_mmdetection
from tood.zoo.parts import RESNET_101, RESNEXT_101, TINY_BACKBONE, TINY_INPUT, TINY_NECK


def atss_r50_fpn_1x() -> ATSSConfig:
    """The rival of TOOD's main model, on the same backbone and neck: 39.4 AP on COCO minival after 12 epochs."""
    return ATSSConfig()


def atss_r101_fpn_2x() -> ATSSConfig:
    """On a ResNet-101, trained at several scales for 24 epochs: 43.5 AP."""
    return replace(ATSSConfig(), backbone=RESNET_101)


def atss_x101_fpn_2x() -> ATSSConfig:
    """On a ResNeXt-101 64x4d: 45.5 AP."""
    return replace(ATSSConfig(), backbone=RESNEXT_101)


def atss_r101_dcnv2_fpn_2x() -> ATSSConfig:
    """With DCNv2 in the backbone's C3 to C5: the authors' has 46.1 AP."""
    return replace(ATSSConfig(), backbone=replace(RESNET_101, deformable_stages=(1, 2, 3)))


def atss_x101_dcnv2_fpn_2x() -> ATSSConfig:
    """With DCNv2 in the backbone's C3 to C5: the authors' has 47.7 AP."""
    return replace(ATSSConfig(), backbone=replace(RESNEXT_101, deformable_stages=(1, 2, 3)))


def atss_tiny() -> ATSSConfig:
    """Of the budget of `tood_tiny`, on its backbone and neck."""
    return ATSSConfig(
        backbone=TINY_BACKBONE,
        neck=TINY_NECK,
        head=ATSSHeadConfig(width=64, tower_layers=2, norm_groups=8),
        input=TINY_INPUT,
    )


_R101_OF_THE_AUTHORS = "the authors' network, which has DCNv2 in the last layer of both towers as well"
_X101_OF_THE_AUTHORS = f"{_R101_OF_THE_AUTHORS}, and in the backbone in C4 and C5 alone"


CARDS: tuple[ModelCard, ...] = (
    ModelCard("atss_tiny", atss_tiny, "small", criterion=ATSSCriterionConfig),
    ModelCard(
        "atss_r50_fpn_1x",
        atss_r50_fpn_1x,
        "1x",
        published_ap=39.4,
        published_ap_test_dev=39.3,
        criterion=ATSSCriterionConfig,
        weights=on_mmdetection("atss/atss_r50_fpn_1x_coco/atss_r50_fpn_1x_coco_20200209", "985f7bd0"),
    ),
    ModelCard(  # The name tells the schedule, the network is that of 2x.
        "atss_r101_fpn_1x",
        atss_r101_fpn_2x,
        "1x",
        published_ap=41.5,
        criterion=ATSSCriterionConfig,
        weights=on_mmdetection("atss/atss_r101_fpn_1x_coco/atss_r101_fpn_1x_20200825", "dfcadd6f"),
    ),
    ModelCard(
        "atss_r101_fpn_2x",
        atss_r101_fpn_2x,
        "2x",
        published_ap=43.5,
        published_ap_test_dev=43.6,
        criterion=ATSSCriterionConfig,
    ),
    ModelCard(
        "atss_r101_dcnv2_fpn_2x",
        atss_r101_dcnv2_fpn_2x,
        "2x",
        published_ap=46.1,
        published_ap_test_dev=46.3,
        differs=_R101_OF_THE_AUTHORS,
        criterion=ATSSCriterionConfig,
    ),
    ModelCard(
        "atss_x101_fpn_2x",
        atss_x101_fpn_2x,
        "2x",
        published_ap=45.5,
        published_ap_test_dev=45.6,
        criterion=ATSSCriterionConfig,
    ),
    ModelCard(
        "atss_x101_dcnv2_fpn_2x",
        atss_x101_dcnv2_fpn_2x,
        "2x",
        published_ap=47.7,
        published_ap_test_dev=47.7,
        differs=_X101_OF_THE_AUTHORS,
        criterion=ATSSCriterionConfig,
    ),
)
