"""GFL's named models: each a function that returns a configuration, and its card.

The ResNeXt is MMDetection's 32x4d; the paper's largest, of 48.2 AP on test-dev, is a 32x8d.
"""

from __future__ import annotations

from dataclasses import replace

from tood.models.gfl.config import GFLConfig
from tood.models.gfl.criterion import GFLCriterionConfig
from tood.models.gfl.head import GFLHeadConfig
from tood.zoo.card import ModelCard, on_mmdetection
from tood.zoo.parts import RESNET_101, RESNEXT_101_32X4D, TINY_BACKBONE, TINY_INPUT, TINY_NECK


def gfl_r50_fpn_1x() -> GFLConfig:
    """The published main model: 40.2 AP on COCO minival after 12 epochs."""
    return GFLConfig()


def gfl_r101_fpn_2x() -> GFLConfig:
    """On a ResNet-101, trained at several scales for 24 epochs: 44.9 AP."""
    return replace(GFLConfig(), backbone=RESNET_101)


def gfl_x101_fpn_2x() -> GFLConfig:
    """On a ResNeXt-101 32x4d: 45.9 AP."""
    return replace(GFLConfig(), backbone=RESNEXT_101_32X4D)


def gfl_r101_dcnv2_fpn_2x() -> GFLConfig:
    """With DCNv2 in the backbone's C3 to C5: 47.2 AP."""
    return replace(GFLConfig(), backbone=replace(RESNET_101, deformable_stages=(1, 2, 3)))


def gfl_x101_dcnv2_fpn_2x() -> GFLConfig:
    """With DCNv2 in the backbone's C4 and C5: 48.1 AP."""
    return replace(GFLConfig(), backbone=replace(RESNEXT_101_32X4D, deformable_stages=(2, 3)))


def gfl_tiny() -> GFLConfig:
    """Of the budget of `tood_tiny`, on its backbone and neck."""
    return GFLConfig(
        backbone=TINY_BACKBONE,
        neck=TINY_NECK,
        head=GFLHeadConfig(width=64, tower_layers=2, norm_groups=8),
        input=TINY_INPUT,
    )


CARDS: tuple[ModelCard, ...] = (
    ModelCard("gfl_tiny", gfl_tiny, "small", criterion=GFLCriterionConfig),
    ModelCard(
        "gfl_r50_fpn_1x",
        gfl_r50_fpn_1x,
        "1x",
        published_ap=40.2,
        published_ap_test_dev=40.3,
        criterion=GFLCriterionConfig,
        weights=on_mmdetection("gfl/gfl_r50_fpn_1x_coco/gfl_r50_fpn_1x_coco_20200629_121244", "25944287"),
    ),
    ModelCard(  # The name tells the schedule, the network is that of 1x.
        "gfl_r50_fpn_2x",
        gfl_r50_fpn_1x,
        "2x",
        published_ap=42.9,
        criterion=GFLCriterionConfig,
        weights=on_mmdetection(
            "gfl/gfl_r50_fpn_mstrain_2x_coco/gfl_r50_fpn_mstrain_2x_coco_20200629_213802", "37bb1edc"
        ),
    ),
    ModelCard(
        "gfl_r101_fpn_2x",
        gfl_r101_fpn_2x,
        "2x",
        published_ap=44.9,
        published_ap_test_dev=45.0,
        criterion=GFLCriterionConfig,
        weights=on_mmdetection(
            "gfl/gfl_r101_fpn_mstrain_2x_coco/gfl_r101_fpn_mstrain_2x_coco_20200629_200126", "dd12f847"
        ),
    ),
    ModelCard(
        "gfl_r101_dcnv2_fpn_2x",
        gfl_r101_dcnv2_fpn_2x,
        "2x",
        published_ap=47.2,
        published_ap_test_dev=47.3,
        criterion=GFLCriterionConfig,
        weights=on_mmdetection(
            "gfl/gfl_r101_fpn_dconv_c3-c5_mstrain_2x_coco/gfl_r101_fpn_dconv_c3-c5_mstrain_2x_coco_20200630_102002",
            "134b07df",
        ),
    ),
    ModelCard(
        "gfl_x101_fpn_2x",
        gfl_x101_fpn_2x,
        "2x",
        published_ap=45.9,
        criterion=GFLCriterionConfig,
        weights=on_mmdetection(
            "gfl/gfl_x101_32x4d_fpn_mstrain_2x_coco/gfl_x101_32x4d_fpn_mstrain_2x_coco_20200630_102002", "50c1ffdb"
        ),
    ),
    ModelCard(
        "gfl_x101_dcnv2_fpn_2x",
        gfl_x101_dcnv2_fpn_2x,
        "2x",
        published_ap=48.1,
        criterion=GFLCriterionConfig,
        weights=on_mmdetection(
            "gfl/gfl_x101_32x4d_fpn_dconv_c4-c5_mstrain_2x_coco/"
            "gfl_x101_32x4d_fpn_dconv_c4-c5_mstrain_2x_coco_20200630_102002",
            "14a2bf25",
        ),
    ),
)
