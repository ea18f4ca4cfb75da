"""CSPRepResNet: PP-YOLOE's backbone (Xu et al. 2022), residual blocks in CSP stages that merge for inference."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from tood.models.backbones.in_stages import WholeLearning
from tood.models.common.csp import CSP_KINDS, CSPStage, RepResidual, conv_norm_silu, start_csp
from tood.models.common.fused_parts import InferenceBackbone, with_fused_parts
from tood.models.common.sizes import MOST_CHANNELS, MOST_STAGES, require_each, require_stages
from tood.ops import known

_WIDTHS, _BLOCKS = (64, 128, 256, 512, 1024), (3, 6, 6, 3)


@dataclass(frozen=True)
class CSPRepResNetConfig(WholeLearning):
    """Shape of the backbone; the defaults are those of PP-YOLOE-l.

    Attributes:
        widths: channels of the stem and of each stage.
        blocks: residual blocks in each stage.
        alpha: whether the blocks weigh their 1x1 branches (PP-YOLOE+).
        outputs: stages whose maps are given, 0 being that of stride 4.
    """

    # Of the family that it came with, a configuration need not say it.
    UNNAMED_KIND: ClassVar[bool] = True

    widths: tuple[int, ...] = _WIDTHS
    blocks: tuple[int, ...] = _BLOCKS
    alpha: bool = False
    outputs: tuple[int, ...] = (1, 2, 3)
    kind: Literal["csp_rep_resnet"] = "csp_rep_resnet"

    def __post_init__(self) -> None:
        require_each("model.backbone.widths", self.widths, MOST_CHANNELS, 1 + MOST_STAGES, least=2)
        require_stages(self.widths, self.blocks)

    @staticmethod
    def scaled(width: float, depth: float, alpha: bool = False) -> CSPRepResNetConfig:
        """The published shape with its channels and its blocks multiplied, in whole numbers of at least 1."""
        return CSPRepResNetConfig(
            widths=tuple(max(round(channels * width), 1) for channels in _WIDTHS),
            blocks=tuple(max(round(blocks * depth), 1) for blocks in _BLOCKS),
            alpha=alpha,
        )

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
        return tuple(self.widths[1 + stage] for stage in self.outputs)

    @property
    def strides(self) -> tuple[int, ...]:
        """Input pixels a cell of each output map."""
        return tuple(4 * 2**stage for stage in self.outputs)

    @property
    def description(self) -> str:
        """A few words, such as "CSPRepResNet-512-3.6.6.3"."""
        return f"CSPRepResNet-{self.widths[-1]}-{'.'.join(map(str, self.blocks))}"

    def build(self) -> CSPRepResNet:
        """The backbone, with freshly initialised weights."""
        return CSPRepResNet(self)


class DownStage(nn.Module):
    """A convolution that halves the map, and a CSP stage of residual blocks with attention."""

    def __init__(self, inputs: int, outputs: int, blocks: int, alpha: bool) -> None:
        super().__init__()
        middle = (inputs + outputs) // 2
        half = middle // 2
        self.down = conv_norm_silu(inputs, middle, 3, 2)
        residuals = {str(i): RepResidual(half, shortcut=True, alpha=alpha) for i in range(blocks)}
        self.csp = CSPStage(middle, outputs, half, residuals, attention=True)

    def forward(self, x: Tensor) -> Tensor:
        """[B, inputs, H, W] -> [B, outputs, ceil(H / 2), ceil(W / 2)]."""
        out: Tensor = self.csp(self.down(x))
        return out


class CSPRepResNet(nn.Module):
    """Feature maps of an image at strides 4, 8, 16, 32."""

    def __init__(self, config: CSPRepResNetConfig) -> None:
        super().__init__()
        self.config = config
        first = config.widths[0]
        self.stem = nn.Sequential(
            conv_norm_silu(3, first // 2, 3, 2),
            conv_norm_silu(first // 2, first // 2, 3),
            conv_norm_silu(first // 2, first, 3),
        )
        self.down_stages = nn.ModuleList(
            DownStage(config.widths[stage], config.widths[stage + 1], blocks, config.alpha)
            for stage, blocks in enumerate(config.blocks)
        )
        start_csp(self)

    def forward(self, images: Tensor) -> list[Tensor]:
        """[B, 3, H, W] normalised -> the configured stages' maps [B, C, H / stride, W / stride]."""
        x = self.stem(images)
        maps = []
        for number, stage in enumerate(self.down_stages):
            x = stage(x)
            if number in self.config.outputs:
                maps.append(x)
        return maps

    def stages(self) -> list[list[nn.Module]]:
        """Its parts from the image on, the stem first."""
        return [[self.stem], *([stage] for stage in self.down_stages)]

    def fuse(self, dtype: torch.dtype) -> InferenceBackbone:
        """The same as fewer operations, to predict with; raises `CannotFuse` where a part is of another kind."""
        body = with_fused_parts(known(self, CSPRepResNet), (CSPRepResNet, DownStage, *CSP_KINDS), dtype)
        return InferenceBackbone(body, dtype)
