"""Parts of a few thousand weights, of which families make their examples (`Family.examples`)."""

from __future__ import annotations

from tood.input import InputConfig
from tood.models.backbones import ResNetConfig
from tood.models.necks import FPNConfig

# One block a stage has all that a stage has: its stride and its shortcut.
BACKBONE = ResNetConfig(blocks=(1, 1), width=8, stem_width=8, outputs=(0, 1), frozen_stages=-1)
NECK = FPNConfig(width=16, levels=3)
INPUT = InputConfig(short=64, long=96)
