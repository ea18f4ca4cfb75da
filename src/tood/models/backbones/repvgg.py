"""The RepVGG-style backbone of YOLOX-PAI: branches while it learns, plain 3x3 convolutions when it predicts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from torch import nn

from tood.models.backbones.in_stages import BackboneInStages, WholeLearning
from tood.models.common.rep_block import RepBlock
from tood.models.common.sizes import MOST_CHANNELS, MOST_STAGES, require_each, require_stages
from tood.models.common.yolo_blocks import PoolingBottleneck, init_convolutions, yolo_norm


@dataclass(frozen=True)
class RepVGGConfig(WholeLearning):
    """Shape of the backbone; the defaults are YOLOX-PAI-s's.

    Attributes:
        widths: channels of the stem and of each stage.
        blocks: re-parameterisable blocks of each stage, the first of which halves the map.
        outputs: stages whose maps are given, 0 being that at stride 4.
    """

    # Of the family that it came with, a configuration need not say it.
    UNNAMED_KIND: ClassVar[bool] = True

    kind: Literal["repvgg"] = "repvgg"
    widths: tuple[int, ...] = (32, 64, 128, 256, 512)
    blocks: tuple[int, ...] = (3, 5, 7, 3)
    outputs: tuple[int, ...] = (1, 2, 3)

    def __post_init__(self) -> None:
        require_each("model.backbone.widths", self.widths, MOST_CHANNELS, 1 + MOST_STAGES)
        require_stages(self.widths, self.blocks)

    @property
    def stages(self) -> int:
        """Stages that maps may be taken of."""
        return len(self.blocks)

    @property
    def divisor(self) -> int:
        """What the sides of its images are multiples of."""
        return 1

    @property
    def channels(self) -> tuple[int, ...]:
        """Channels of each output map."""
        return tuple(self.widths[stage + 1] for stage in self.outputs)

    @property
    def strides(self) -> tuple[int, ...]:
        """Input pixels a cell of each output map."""
        return tuple(4 * 2**stage for stage in self.outputs)

    @property
    def description(self) -> str:
        """A few words."""
        return f"RepVGG {self.widths[0]}-{'-'.join(map(str, self.blocks))}"

    def build(self) -> RepVGG:
        """The backbone, with freshly initialised weights."""
        return RepVGG(self)


class RepVGG(BackboneInStages):
    """Feature maps of an image at strides 4, 8, 16, 32; the last stage ends in pooling over several windows."""

    def __init__(self, config: RepVGGConfig) -> None:
        stages: list[nn.Module] = []
        for stage, blocks in enumerate(config.blocks):
            inputs, width = config.widths[stage : stage + 2]
            layers: list[nn.Module] = [RepBlock(inputs, width, 2, norm=yolo_norm)]
            layers += [RepBlock(width, width, identity=True, norm=yolo_norm) for _ in range(blocks - 1)]
            if stage == len(config.blocks) - 1:
                layers.append(PoolingBottleneck(width, width, "relu"))
            stages.append(nn.Sequential(*layers))
        super().__init__(RepBlock(3, config.widths[0], 2, norm=yolo_norm), stages, config.outputs)
        self.config = config
        init_convolutions(self)
