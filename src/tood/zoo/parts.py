"""Parts that named models of several families are made of."""

from __future__ import annotations

from dataclasses import replace

from tood.input import InputConfig
from tood.models.backbones import ResNetConfig
from tood.models.necks import FPNConfig

RESNET_101 = ResNetConfig(blocks=(3, 4, 23, 3))
RESNEXT_101 = replace(RESNET_101, groups=64, width_per_group=4)
RESNEXT_101_32X4D = replace(RESNET_101, groups=32, width_per_group=4)

# Of a laptop's models, which learn from scratch: nothing is frozen, three levels, 448 pixels.
TINY_BACKBONE = ResNetConfig(
    block="basic",
    blocks=(1, 1, 1, 1),
    width=32,
    stem_width=16,
    frozen_stages=-1,
    zero_init_residual=False,
    norm_eval=False,
)
TINY_NECK = FPNConfig(width=64, levels=3)
TINY_INPUT = InputConfig(short=448, long=448)
