"""Everything that an ATSS network is built from."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from tood.input import InputConfig
from tood.models.atss.head import ATSSHead, ATSSHeadConfig
from tood.models.backbones import AnyBackboneConfig, ResNetConfig
from tood.models.common.detector import DenseDetector, check_head
from tood.models.common.parts import build_trunk, one_width
from tood.models.common.postprocess_config import AnyPostprocessConfig, PostprocessConfig
from tood.models.necks import AnyNeckConfig, FPNConfig


@dataclass(frozen=True)
class ATSSConfig:
    """A whole network; the defaults are the published R50."""

    family: Literal["atss"] = "atss"
    classes: int = 80
    backbone: AnyBackboneConfig = field(default_factory=ResNetConfig)
    neck: AnyNeckConfig = field(default_factory=FPNConfig)
    head: ATSSHeadConfig = field(default_factory=ATSSHeadConfig)
    input: InputConfig = field(default_factory=InputConfig)
    postprocess: AnyPostprocessConfig = field(default_factory=lambda: PostprocessConfig(clip=True))

    @property
    def strides(self) -> tuple[int, ...]:
        """Input pixels a cell, one a level."""
        return self.neck.strides(self.backbone.strides)

    @property
    def predicts_quality(self) -> bool:
        """Whether the head has its centerness branch."""
        return self.head.centerness


class ATSS(DenseDetector[ATSSConfig]):
    """Backbone, pyramid and the parallel head."""

    def __init__(self, config: ATSSConfig) -> None:
        check_head(config.classes, config.head.width, config.head.norm_groups)
        backbone, neck = build_trunk(config)
        head = ATSSHead(config.head, config.classes, one_width(config), config.strides)
        super().__init__(config, backbone, neck, head)
