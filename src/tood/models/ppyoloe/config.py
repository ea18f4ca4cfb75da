"""Everything that a PP-YOLOE is built from."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from tood.errors import ToodError
from tood.input import InputConfig
from tood.models.backbones import AnyBackboneConfig, CSPRepResNetConfig
from tood.models.common.detector import DenseDetector
from tood.models.common.parts import build_trunk, level_widths
from tood.models.common.postprocess_config import AnyPostprocessConfig, PostprocessConfig
from tood.models.necks import AnyNeckConfig, CSPPANConfig
from tood.models.ppyoloe.head import ETHead, ETHeadConfig

# Colours as ImageNet's models want them; PP-YOLOE+ takes 0..1.
LEGACY_INPUT = InputConfig(short=640, long=640, fit="stretch", interpolation="cubic")
PLUS_INPUT = InputConfig(
    short=640, long=640, fit="stretch", interpolation="cubic", mean=(0.0, 0.0, 0.0), std=(255.0, 255.0, 255.0)
)
# Published evaluation: the best of each class over all levels together.
POSTPROCESS = PostprocessConfig(score_threshold=0.01, per_class=1000, iou_threshold=0.7, max_detections=300)


@dataclass(frozen=True)
class PPYOLOEConfig:
    """A whole network; the defaults are those of PP-YOLOE-l."""

    family: Literal["ppyoloe"] = "ppyoloe"
    classes: int = 80
    backbone: AnyBackboneConfig = field(default_factory=CSPRepResNetConfig)
    neck: AnyNeckConfig = field(default_factory=CSPPANConfig)
    head: ETHeadConfig = field(default_factory=ETHeadConfig)
    input: InputConfig = field(default_factory=lambda: LEGACY_INPUT)
    postprocess: AnyPostprocessConfig = field(default_factory=lambda: POSTPROCESS)

    @staticmethod
    def scaled(width: float, depth: float, plus: bool, classes: int = 80) -> PPYOLOEConfig:
        """A network of the published shape with its channels and its blocks multiplied.

        Args:
            width, depth: the two factors; 0.5 and 0.33 make an s, 1 and 1 an l.
            plus: whether it is a PP-YOLOE+: blocks weigh their 1x1 branches, and colours are 0..1.
            classes: number of classes.
        """
        return PPYOLOEConfig(
            classes=classes,
            backbone=CSPRepResNetConfig.scaled(width, depth, alpha=plus),
            neck=CSPPANConfig.scaled(width, depth),
            input=PLUS_INPUT if plus else LEGACY_INPUT,
        )

    @property
    def strides(self) -> tuple[int, ...]:
        """Input pixels a cell, one a level."""
        return self.neck.strides(self.backbone.strides)

    @property
    def predicts_quality(self) -> bool:
        """Never: its class scores say how good a box is."""
        return False


class PPYOLOE(DenseDetector[PPYOLOEConfig]):
    """Backbone, path aggregation and the efficient task-aligned head."""

    def __init__(self, config: PPYOLOEConfig) -> None:
        if config.classes < 1:
            raise ToodError(f"model.classes is {config.classes}: a detector needs at least one class")
        backbone, neck = build_trunk(config)
        head = ETHead(config.head, config.classes, level_widths(config), config.strides)
        super().__init__(config, backbone, neck, head)
