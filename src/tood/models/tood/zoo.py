"""The named models of the family: each a function that returns a configuration."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType

from tood.input import InputConfig
from tood.models.backbones import ResNetConfig
from tood.models.family import NamedModel
from tood.models.necks import FPNConfig
from tood.models.tood.config import TOODConfig
from tood.models.tood.head import THeadConfig

RESNET_101 = ResNetConfig(blocks=(3, 4, 23, 3))
RESNEXT_101 = replace(RESNET_101, groups=64, width_per_group=4)


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
        backbone=ResNetConfig(
            block="basic",
            blocks=(1, 1, 1, 1),
            width=32,
            stem_width=16,
            frozen_stages=-1,
            zero_init_residual=False,
            norm_eval=False,
        ),
        neck=FPNConfig(width=64, levels=3),
        head=THeadConfig(width=64, interactive_layers=3, norm_groups=8),
        input=InputConfig(short=448, long=448),
    )


MODELS: Mapping[str, NamedModel] = MappingProxyType(
    {
        "tood_tiny": NamedModel(tood_tiny, "small"),
        "tood_r18_fpn": NamedModel(tood_r18_fpn, "1x"),
        "tood_r50_fpn_1x": NamedModel(tood_r50_fpn_1x, "1x", 42.5, 42.7),
        "tood_r50_fpn_anchor_based_1x": NamedModel(tood_r50_fpn_anchor_based_1x, "1x", 42.4, 42.8),
        # Not in the paper; MMDetection's figure. The name tells the schedule, the network is that of 1x.
        "tood_r50_fpn_2x": NamedModel(tood_r50_fpn_1x, "2x", 44.5),
        "tood_r101_fpn_2x": NamedModel(tood_r101_fpn_2x, "2x", 46.2, 46.7),
        "tood_r101_dcnv2_fpn_2x": NamedModel(tood_r101_dcnv2_fpn_2x, "2x", 49.2, 49.6),
        "tood_x101_fpn_2x": NamedModel(tood_x101_fpn_2x, "2x", 47.6, 48.5),
        "tood_x101_dcnv2_fpn_2x": NamedModel(tood_x101_dcnv2_fpn_2x, "2x", 50.5, 51.1),
    }
)
