"""TOOD's named models: each a function that returns a configuration, and its card."""

from __future__ import annotations

from dataclasses import replace

from tood.choices import MANY_OBJECTS
from tood.input import InputConfig
from tood.models.backbones import EfficientNetLiteConfig, ResNetConfig
from tood.models.common import PostprocessConfig
from tood.models.necks import FPNConfig
from tood.models.tood.config import TOODConfig
from tood.models.tood.head import THeadConfig
from tood.zoo.card import ModelCard, PublishedWeights, on_mmdetection
from tood.zoo.parts import RESNET_101, RESNEXT_101, TINY_BACKBONE, TINY_INPUT, TINY_NECK


def tood_r50_fpn_1x() -> TOODConfig:
    """The paper's main model: 42.5 AP on COCO minival after 12 epochs."""
    return TOODConfig()


def tood_r50_fpn_anchor_based_1x() -> TOODConfig:
    """The paper's main model predicting from square anchors: 42.4 AP."""
    return replace(TOODConfig(), head=THeadConfig(anchor="based"))


def tood_r101_fpn_2x() -> TOODConfig:
    """On a ResNet-101, trained at several scales for 24 epochs: 46.2 AP."""
    return replace(TOODConfig(), backbone=RESNET_101)


def tood_x101_fpn_2x() -> TOODConfig:
    """On a ResNeXt-101 64x4d: 47.6 AP."""
    return replace(TOODConfig(), backbone=RESNEXT_101)


def tood_r101_dcnv2_fpn_2x() -> TOODConfig:
    """With DCNv2 in the backbone's C3 to C5 and in the first two layers of the head: 49.2 AP."""
    return replace(
        TOODConfig(),
        backbone=replace(RESNET_101, deformable_stages=(1, 2, 3)),
        head=THeadConfig(deformable_layers=2),
    )


def tood_x101_dcnv2_fpn_2x() -> TOODConfig:
    """The paper's best, with DCNv2 in the backbone's C4 and C5 and in the first two layers of the head: 50.5 AP."""
    return replace(
        TOODConfig(),
        backbone=replace(RESNEXT_101, deformable_stages=(2, 3)),
        head=THeadConfig(deformable_layers=2),
    )


def tood_r18_fpn() -> TOODConfig:
    """The paper's head on a ResNet-18, for one small GPU."""
    return replace(TOODConfig(), backbone=ResNetConfig(block="basic", blocks=(2, 2, 2, 2)))


def tood_tiny() -> TOODConfig:
    """Sized for a laptop's CPU and for training from scratch: nothing is frozen, three levels, 448 pixels."""
    return TOODConfig(
        backbone=TINY_BACKBONE,
        neck=TINY_NECK,
        head=THeadConfig(width=64, interactive_layers=3, norm_groups=8),
        input=TINY_INPUT,
    )


def tood_lite0() -> TOODConfig:
    """On an EfficientNet-Lite0 that knows ImageNet: for photographs, of which there may be few, on any machine."""
    return TOODConfig(
        backbone=EfficientNetLiteConfig(frozen_stages=3),
        neck=FPNConfig(width=96, levels=4),
        head=THeadConfig(width=96, interactive_layers=3, norm_groups=8),
        input=InputConfig(short=448, long=448, mean=(127.0, 127.0, 127.0), std=(128.0, 128.0, 128.0)),
        # What learned from few pictures is less sure of what it finds, and AP counts that too; and of where that is, so
        # that the boxes of neighbours make a box better. Cut, as objects that go on beyond the picture are annotated as
        # far as it reaches.
        postprocess=PostprocessConfig(score_threshold=0.01, clip=True, voting_sigma=0.025),
    )


def tood_lite0_320() -> TOODConfig:
    """`tood_lite0` for half the pixels: without its backbone's last stage, neck and head narrower."""
    return replace(
        tood_lite0(),
        backbone=EfficientNetLiteConfig(frozen_stages=3, outputs=(2, 4, 5)),
        neck=FPNConfig(width=64, levels=4),
        head=THeadConfig(width=64, interactive_layers=3, norm_groups=8),
        input=InputConfig(short=320, long=320, mean=(127.0, 127.0, 127.0), std=(128.0, 128.0, 128.0)),
    )


def tood_lite2() -> TOODConfig:
    """On the larger EfficientNet-Lite2, with more pixels and a wider head: for a thousand labelled objects or more."""
    small = tood_lite0()
    return replace(
        small,
        backbone=EfficientNetLiteConfig(width=1.1, depth=1.2, frozen_stages=3),
        neck=FPNConfig(width=128, levels=4),
        head=THeadConfig(width=128, interactive_layers=4, norm_groups=8),
        input=replace(small.input, short=512, long=512),
    )


CARDS: tuple[ModelCard, ...] = (
    ModelCard("tood_tiny", tood_tiny, "small"),
    # Of 139 objects it cost 0.05 AP that all stages learned, of 3,939 it gave 0.005 (docs/small-data.md).
    ModelCard("tood_lite0", tood_lite0, "transfer", thaw_from=MANY_OBJECTS),
    ModelCard("tood_lite0_320", tood_lite0_320, "transfer", thaw_from=MANY_OBJECTS),
    ModelCard("tood_lite2", tood_lite2, "transfer", thaw_from=MANY_OBJECTS),
    ModelCard("tood_r18_fpn", tood_r18_fpn, "1x"),
    ModelCard(
        "tood_r50_fpn_1x",
        tood_r50_fpn_1x,
        "1x",
        published_ap=42.5,
        published_ap_test_dev=42.7,
        weights=on_mmdetection(
            "tood/tood_r50_fpn_1x_coco/tood_r50_fpn_1x_coco_20211210_103425",
            "20e20746",
            "1M7ccIsfQKA5pEtgMlRSadokLu_cFKO4B",
        ),
    ),
    ModelCard(
        "tood_r50_fpn_anchor_based_1x",
        tood_r50_fpn_anchor_based_1x,
        "1x",
        published_ap=42.4,
        published_ap_test_dev=42.8,
        weights=on_mmdetection(
            "tood/tood_r50_fpn_anchor_based_1x_coco/tood_r50_fpn_anchor_based_1x_coco_20211214_100105",
            "b776c134",
            "1G3Waqs3Xh7h1bfwcUfek91S1JKRCTAdV",
        ),
    ),
    ModelCard(  # Not in the paper; MMDetection's figure. The name tells the schedule, the network is that of 1x.
        "tood_r50_fpn_2x",
        tood_r50_fpn_1x,
        "2x",
        published_ap=44.5,
        weights=on_mmdetection(
            "tood/tood_r50_fpn_mstrain_2x_coco/tood_r50_fpn_mstrain_2x_coco_20211210_144231", "3b23174c"
        ),
    ),
    ModelCard(
        "tood_r101_fpn_2x",
        tood_r101_fpn_2x,
        "2x",
        published_ap=46.2,
        published_ap_test_dev=46.7,
        weights=on_mmdetection(
            "tood/tood_r101_fpn_mstrain_2x_coco/tood_r101_fpn_mstrain_2x_coco_20211210_144232",
            "a18f53c8",
            "14NTtLVpG0I75jb55hB6smnibknkQ4wdb",
        ),
    ),
    ModelCard(
        "tood_r101_dcnv2_fpn_2x",
        tood_r101_dcnv2_fpn_2x,
        "2x",
        published_ap=49.2,
        published_ap_test_dev=49.6,
        weights=on_mmdetection(
            "tood/tood_r101_fpn_dconv_c3-c5_mstrain_2x_coco/tood_r101_fpn_dconv_c3-c5_mstrain_2x_coco_20211210_213728",
            "4a824142",
            "1ufipVoODv-NgthQ8ZvLeW12TEIsCgWl5",
        ),
    ),
    ModelCard(
        "tood_x101_fpn_2x",
        tood_x101_fpn_2x,
        "2x",
        published_ap=47.6,
        published_ap_test_dev=48.5,
        weights=on_mmdetection(
            "tood/tood_x101_64x4d_fpn_mstrain_2x_coco/tood_x101_64x4d_fpn_mstrain_2x_coco_20211211_003519",
            "a4f36113",
            "1IbCZ5Lim_vkgRctsJ7Sb8czrOFQpmuRF",
        ),
    ),
    ModelCard(
        "tood_x101_dcnv2_fpn_2x",
        tood_x101_dcnv2_fpn_2x,
        "2x",
        published_ap=50.5,
        published_ap_test_dev=51.1,
        weights=PublishedWeights(None, "1xYSuZF5RfK81rJImNlTZWbIhPWfb5S5-"),
    ),
)
