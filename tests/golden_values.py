"""The golden files and the narrow model that they were computed with."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import torch

from tood.models.backbones import ResNetConfig
from tood.models.necks import FPNConfig
from tood.models.tood import TOOD, THeadConfig, TOODConfig
from tood.models.tood.weights import from_published
from tood.structures import Targets

FOLDER = Path(__file__).parent / "golden"

NARROW = TOODConfig(
    classes=7,
    backbone=ResNetConfig(width=8, stem_width=8),
    neck=FPNConfig(width=32),
    head=THeadConfig(width=32, norm_groups=8),
)


@cache
def golden(name: str) -> dict[str, Any]:
    return torch.load(FOLDER / f"{name}.pt", weights_only=True)


def narrow_model(name: str = "anchor_free", config: TOODConfig = NARROW) -> TOOD:
    model = TOOD(config)
    model.load_state_dict(from_published(golden(name)["state_dict"]))
    return model.eval()


def targets_of(boxes: list[torch.Tensor], labels: list[torch.Tensor]) -> list[Targets]:
    return [Targets(b, c, torch.zeros(len(c), dtype=torch.bool)) for b, c in zip(boxes, labels, strict=True)]
