"""Everything that a toy network is built from."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from tood.models.toy.backbone import ToyBackbone, ToyBackboneConfig
from tood.models.toy.head import ToyHead, ToyHeadConfig
from tood.models.toy.neck import ToyNeck, ToyNeckConfig

from tood.input import InputConfig
from tood.models.common import AnyPostprocessConfig, DenseDetector, PostprocessConfig


@dataclass(frozen=True)
class ToyConfig:
    """A whole network."""

    family: Literal["toy"] = "toy"
    classes: int = 80
    backbone: ToyBackboneConfig = field(default_factory=ToyBackboneConfig)
    neck: ToyNeckConfig = field(default_factory=ToyNeckConfig)
    head: ToyHeadConfig = field(default_factory=ToyHeadConfig)
    input: InputConfig = field(default_factory=InputConfig)
    postprocess: AnyPostprocessConfig = field(default_factory=PostprocessConfig)

    @property
    def strides(self) -> tuple[int, ...]:
        """Input pixels a cell, one a level."""
        return self.backbone.strides

    @property
    def predicts_quality(self) -> bool:
        """Never."""
        return False


class Toy(DenseDetector[ToyConfig]):
    """The three parts together."""

    def __init__(self, config: ToyConfig) -> None:
        backbone = ToyBackbone(config.backbone)
        neck = ToyNeck(config.neck, config.backbone.channels)
        head = ToyHead(config.head, config.classes, config.neck.width, config.strides)
        super().__init__(config, backbone, neck, head)
