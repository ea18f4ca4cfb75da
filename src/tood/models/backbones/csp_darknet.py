"""CSPDarknet: YOLOv5's backbone behind a stem that takes pixels apart, as YOLOX has it (Ge et al. 2021)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from torch import Tensor, nn

from tood.models.backbones.in_stages import BackboneInStages, WholeLearning
from tood.models.common.sizes import MOST_CHANNELS, MOST_LAYERS, MOST_STAGES, require_each, require_whole
from tood.models.common.yolo_blocks import (
    CSPLayer,
    PoolingBottleneck,
    conv3x3,
    init_convolutions,
    space_to_depth,
    yolo_conv,
)


@dataclass(frozen=True)
class CSPDarknetConfig(WholeLearning):
    """Shape of the backbone; the defaults are YOLOX-L's.

    Attributes:
        width: channels of the stem; each of the stages has twice as many as what comes before it.
        blocks: bottlenecks in each stage's cross stage partial layer.
        depthwise: whether 3x3 convolutions behind the stem are depthwise separable (YOLOX-Nano).
        outputs: stages whose maps are given, 0 being that at stride 4.
    """

    # Of the family that it came with, a configuration need not say it.
    UNNAMED_KIND: ClassVar[bool] = True

    kind: Literal["csp_darknet"] = "csp_darknet"
    width: int = 64
    blocks: tuple[int, ...] = (3, 9, 9, 3)
    depthwise: bool = False
    outputs: tuple[int, ...] = (1, 2, 3)

    def __post_init__(self) -> None:
        require_whole("model.backbone.width", self.width, MOST_CHANNELS)
        require_each("model.backbone.blocks", self.blocks, MOST_LAYERS, MOST_STAGES)

    @property
    def stages(self) -> int:
        """Stages that maps may be taken of."""
        return len(self.blocks)

    @property
    def divisor(self) -> int:
        """What the sides of its images are multiples of."""
        return 2

    @property
    def channels(self) -> tuple[int, ...]:
        """Channels of each output map."""
        return tuple(self.width * 2 ** (stage + 1) for stage in self.outputs)

    @property
    def strides(self) -> tuple[int, ...]:
        """Input pixels a cell of each output map."""
        return tuple(4 * 2**stage for stage in self.outputs)

    @property
    def description(self) -> str:
        """A few words."""
        kind = "depthwise CSPDarknet" if self.depthwise else "CSPDarknet"
        return f"{kind} {self.width}-{'-'.join(map(str, self.blocks))}"

    def build(self) -> CSPDarknet:
        """The backbone, with freshly initialised weights."""
        return CSPDarknet(self)


class SpaceToDepthStem(nn.Module):
    """Each pixel beside three of its neighbours, as 12 channels at half the size, then a 3x3 convolution."""

    def __init__(self, outputs: int) -> None:
        super().__init__()
        self.conv = yolo_conv(12, outputs, 3)

    def forward(self, images: Tensor) -> Tensor:
        """[B, 3, H, W], even sides -> [B, outputs, H / 2, W / 2]."""
        return self.conv(space_to_depth(images))  # type: ignore[no-any-return]


class CSPDarknet(BackboneInStages):
    """Feature maps of an image at strides 4, 8, 16, 32."""

    KINDS = (*BackboneInStages.KINDS, SpaceToDepthStem)

    def __init__(self, config: CSPDarknetConfig) -> None:
        stages: list[nn.Module] = []
        for stage, blocks in enumerate(config.blocks):
            inputs, last = config.width * 2**stage, stage == len(config.blocks) - 1
            width = 2 * inputs
            layers: list[nn.Module] = [conv3x3(inputs, width, 2, depthwise=config.depthwise)]
            if last:
                layers.append(PoolingBottleneck(width, width))
            layers.append(CSPLayer(width, width, blocks, add=not last, depthwise=config.depthwise))
            stages.append(nn.Sequential(*layers))
        super().__init__(SpaceToDepthStem(config.width), stages, config.outputs)
        self.config = config
        init_convolutions(self)
