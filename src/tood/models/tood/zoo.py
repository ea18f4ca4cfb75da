"""The named models of the family: each a function that returns a configuration."""

from __future__ import annotations

from dataclasses import replace

from tood.models.backbones import ResNetConfig
from tood.models.common.input import InputConfig
from tood.models.necks import FPNConfig
from tood.models.tood.config import TOODConfig
from tood.models.tood.head import THeadConfig


def tood_r50_fpn_1x() -> TOODConfig:
    """The paper's main model: 42.5 AP on COCO minival after 12 epochs."""
    return TOODConfig()


def tood_r18_fpn() -> TOODConfig:
    """The paper's head on a ResNet-18, for one small GPU."""
    return replace(TOODConfig(), backbone=ResNetConfig(block="basic", blocks=(2, 2, 2, 2)))


def tood_tiny() -> TOODConfig:
    """Sized for a laptop's CPU and for training from scratch: nothing is frozen, three levels, 448 pixels."""
    return TOODConfig(
        backbone=ResNetConfig(
            block="basic", blocks=(1, 1, 1, 1), width=32, stem_width=16, frozen_stages=-1, norm_eval=False
        ),
        neck=FPNConfig(width=64, levels=3),
        head=THeadConfig(width=64, interactive_layers=3, norm_groups=8),
        input=InputConfig(short=448, long=448),
    )
