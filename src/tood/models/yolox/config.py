"""Everything that a YOLOX network is built from."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from tood.errors import ToodError
from tood.input import InputConfig
from tood.models.backbones import AnyBackboneConfig, CSPDarknetConfig
from tood.models.common.detector import DenseDetector, check_head
from tood.models.common.parts import build_trunk, level_widths
from tood.models.common.postprocess_config import AnyPostprocessConfig, PostprocessConfig
from tood.models.necks import AnyNeckConfig, CSPPAFPNConfig
from tood.models.yolox.head import YOLOXHead, YOLOXHeadConfig

# Pixels as they are, in OpenCV's order, at the top left of a grey square.
INPUT = InputConfig(
    short=640,
    long=640,
    mean=(0.0, 0.0, 0.0),
    std=(1.0, 1.0, 1.0),
    channels="bgr",
    fit="letterbox",
    letterbox="corner",
    pad=(114, 114, 114),
)
# Each place's best class; without limits, as published.
POSTPROCESS = PostprocessConfig(
    score_threshold=0.01,
    threshold_on="ranked",
    best_class=True,
    per_level=None,
    iou_threshold=0.65,
    max_detections=None,
)


@dataclass(frozen=True)
class YOLOXConfig:
    """A whole network; the defaults are YOLOX-L."""

    family: Literal["yolox"] = "yolox"
    classes: int = 80
    backbone: AnyBackboneConfig = field(default_factory=CSPDarknetConfig)
    neck: AnyNeckConfig = field(default_factory=CSPPAFPNConfig)
    head: YOLOXHeadConfig = field(default_factory=YOLOXHeadConfig)
    input: InputConfig = INPUT
    postprocess: AnyPostprocessConfig = POSTPROCESS

    @property
    def strides(self) -> tuple[int, ...]:
        """Input pixels a cell, one a level."""
        return self.neck.strides(self.backbone.strides)

    @property
    def predicts_quality(self) -> bool:
        """Whether the head has its objectness branch."""
        return self.head.objectness


class YOLOX(DenseDetector[YOLOXConfig]):
    """Backbone, path aggregation network and decoupled head."""

    def __init__(self, config: YOLOXConfig) -> None:
        head = config.head
        check_head(config.classes, head.width, head.norm_groups if head.interactive_layers else 1)
        if head.interactive_layers and head.width < head.attention_reduction:
            raise ToodError(
                f"model.head.attention_reduction is {head.attention_reduction}, which leaves nothing of "
                f"model.head.width {head.width}: choose a smaller one"
            )
        backbone, neck = build_trunk(config)
        super().__init__(config, backbone, neck, YOLOXHead(head, config.classes, level_widths(config), config.strides))
