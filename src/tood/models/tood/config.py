"""Everything that a TOOD network is built from."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from tood.errors import ToodError
from tood.models.backbones import ResNet, ResNetConfig
from tood.models.common.detector import DenseDetector
from tood.models.common.input import InputConfig
from tood.models.common.postprocess_config import PostprocessConfig
from tood.models.necks import FPN, FPNConfig
from tood.models.tood.head import THead, THeadConfig


@dataclass(frozen=True)
class TOODConfig:
    """A whole network; the defaults are the paper's R50."""

    family: Literal["tood"] = "tood"
    classes: int = 80
    backbone: ResNetConfig = field(default_factory=ResNetConfig)
    neck: FPNConfig = field(default_factory=FPNConfig)
    head: THeadConfig = field(default_factory=THeadConfig)
    input: InputConfig = field(default_factory=InputConfig)
    postprocess: PostprocessConfig = field(default_factory=PostprocessConfig)

    @property
    def strides(self) -> tuple[int, ...]:
        """Input pixels a cell, one a level."""
        finest = self.backbone.strides[0]
        return tuple(finest * 2**level for level in range(self.neck.levels))


class TOOD(DenseDetector[TOODConfig]):
    """Backbone, pyramid and T-Head."""

    def __init__(self, config: TOODConfig) -> None:
        _check(config)
        backbone = ResNet(config.backbone)
        neck = FPN(config.neck, config.backbone.channels)
        head = THead(config.head, config.classes, config.neck.width, config.strides)
        super().__init__(config, backbone, neck, head)


def _check(config: TOODConfig) -> None:
    if config.classes < 1:
        raise ToodError(f"model.classes is {config.classes}: a detector needs at least one class")
    if config.head.width % config.head.norm_groups:
        raise ToodError(
            f"model.head.norm_groups is {config.head.norm_groups}, which does not divide model.head.width "
            f"{config.head.width}: choose a divisor"
        )
    if config.neck.levels < len(config.backbone.outputs):
        raise ToodError(
            f"model.neck.levels is {config.neck.levels}, fewer than the {len(config.backbone.outputs)} maps of "
            "model.backbone.outputs: raise the one or shorten the other"
        )
