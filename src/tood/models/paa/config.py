"""Everything that a PAA network is built from."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from tood.input import InputConfig
from tood.models.backbones import AnyBackboneConfig, ResNetConfig
from tood.models.common.detector import DenseDetector, check_head
from tood.models.common.parts import build_trunk, one_width
from tood.models.common.postprocess_config import AnyPostprocessConfig, ScoreVotingConfig
from tood.models.necks import AnyNeckConfig, FPNConfig
from tood.models.paa.head import PAAHead, PAAHeadConfig


@dataclass(frozen=True)
class PAAConfig:
    """A whole network; the defaults are the published R50."""

    family: Literal["paa"] = "paa"
    classes: int = 80
    backbone: AnyBackboneConfig = field(default_factory=ResNetConfig)
    neck: AnyNeckConfig = field(default_factory=FPNConfig)
    head: PAAHeadConfig = field(default_factory=PAAHeadConfig)
    input: InputConfig = field(default_factory=InputConfig)
    postprocess: AnyPostprocessConfig = field(default_factory=lambda: ScoreVotingConfig(clip=True))

    @property
    def strides(self) -> tuple[int, ...]:
        """Input pixels a cell, one a level."""
        return self.neck.strides(self.backbone.strides)

    @property
    def predicts_quality(self) -> bool:
        """Whether the head has its IoU branch."""
        return self.head.iou


class PAA(DenseDetector[PAAConfig]):
    """Backbone, pyramid and the parallel head with an IoU branch."""

    def __init__(self, config: PAAConfig) -> None:
        check_head(config.classes, config.head.width, config.head.norm_groups)
        backbone, neck = build_trunk(config)
        head = PAAHead(config.head, config.classes, one_width(config), config.strides)
        super().__init__(config, backbone, neck, head)
