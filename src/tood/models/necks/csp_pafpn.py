"""Path aggregation network of cross stage partial layers (PAFPN, Liu et al. 2018), as YOLOX and YOLOX-PAI have it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tood.errors import ToodError
from tood.models.common.fused_parts import with_fused_parts
from tood.models.common.sizes import MOST_CHANNELS, MOST_LAYERS, require_whole
from tood.models.common.yolo_blocks import YOLO_KINDS, CSPLayer, conv3x3, init_convolutions, yolo_conv
from tood.models.necks.asff import ASFF, LEVELS
from tood.models.necks.gsconv import GSConv, GSLayer


@dataclass(frozen=True)
class CSPPAFPNConfig:
    """Shape of the neck; the defaults are YOLOX-L's. Its levels are the backbone's maps.

    Attributes:
        blocks: bottlenecks of each cross stage partial layer, or pairs of GSConvs.
        depthwise: whether 3x3 convolutions are depthwise separable (YOLOX-Nano).
        gsconv: which parts are of GSConvs: none, the convolutions between levels ("part"), or these and the layers.
        fusion: what follows on three levels: nothing, adaptively spatial feature fusion ("asff"), or its light form
            without weights for resizing ("asff_sim").
        fusion_channels: channels of each map that the fusion's weights are computed from.
        width: channels of every level, to which a 1x1 convolution each brings them at the end; null leaves them those
            of the backbone's maps.
    """

    # Of the family that it came with, a configuration need not say it.
    UNNAMED_KIND: ClassVar[bool] = True

    blocks: int = 3
    depthwise: bool = False
    gsconv: Literal["none", "part", "all"] = "none"
    fusion: Literal["none", "asff", "asff_sim"] = "none"
    fusion_channels: int = 2
    width: int | None = None
    kind: Literal["csp_pafpn"] = "csp_pafpn"

    def __post_init__(self) -> None:
        require_whole("model.neck.blocks", self.blocks, MOST_LAYERS)
        require_whole("model.neck.fusion_channels", self.fusion_channels, MOST_CHANNELS)
        if self.width is not None:
            require_whole("model.neck.width", self.width, MOST_CHANNELS)

    def channels(self, maps: Sequence[int]) -> tuple[int, ...]:
        """Channels of each level, of those of the backbone's maps."""
        return tuple(maps) if self.width is None else (self.width,) * len(maps)

    def strides(self, maps: Sequence[int]) -> tuple[int, ...]:
        """Input pixels a cell of each level: those of the backbone's maps."""
        return tuple(maps)

    def divisor(self, strides: Sequence[int]) -> int:
        """What the sides of images are multiples of: where levels fuse, each is exactly twice as large as the next."""
        return 1 if self.fusion == "none" else strides[-1]

    @property
    def one_width(self) -> str:
        """How all levels get the same number of channels."""
        return "set model.neck.width"

    def build(self, channels: Sequence[int]) -> CSPPAFPN:
        """The neck on maps of so many channels, with freshly initialised weights."""
        return CSPPAFPN(self, channels)


class CSPPAFPN(nn.Module):
    """Carries the coarse maps' meaning down to the fine ones, and the fine maps' places up to the coarse ones again.

    Args:
        config: its shape.
        channels: of the backbone's maps, fine to coarse.
    """

    def __init__(self, config: CSPPAFPNConfig, channels: Sequence[int]) -> None:
        super().__init__()
        doubled = all(coarse == 2 * fine for fine, coarse in pairwise(channels))
        if config.fusion != "none" and (len(channels) != LEVELS or not doubled):
            raise ToodError(
                f"model.neck.fusion is '{config.fusion}', which joins three maps, each of twice the channels of the "
                f"one before it, and the backbone gives {list(channels)}: set it to none, or change the backbone"
            )
        self.config = config
        # From the coarsest level down: to the next finer one's channels.
        steps = list(zip(channels[:0:-1], channels[-2::-1], strict=True))
        self.reduce_layers = nn.ModuleList(_projection(config, coarse, fine) for coarse, fine in steps)
        self.top_down_blocks = nn.ModuleList(_layer(config, 2 * fine, fine) for _, fine in steps)
        # Before the finest level's layer of GSConvs stands one more.
        self.mixer = GSConv(2 * channels[0], 2 * channels[0], 1) if config.gsconv == "all" else nn.Identity()
        # From the finest level up.
        self.downsamples = nn.ModuleList(_downsample(config, fine) for _, fine in reversed(steps))
        self.bottom_up_blocks = nn.ModuleList(_layer(config, 2 * fine, coarse) for coarse, fine in reversed(steps))
        fusions = range(len(channels)) if config.fusion != "none" else ()
        light = config.fusion == "asff_sim"
        self.fusions = nn.ModuleList(ASFF(channels, level, config.fusion_channels, light) for level in fusions)
        self.projections = nn.ModuleList(
            yolo_conv(own, config.width, 1) for own in channels if config.width is not None
        )
        init_convolutions(self)

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """The backbone's maps, fine to coarse -> as many of the same sizes."""
        *finer, coarsest = maps
        reduced = []
        inner = coarsest
        for step, (reduce, block) in enumerate(zip(self.reduce_layers, self.top_down_blocks, strict=True)):
            own = finer[-1 - step]
            reduced.append(reduce(inner))
            both = torch.cat([F.interpolate(reduced[-1], size=own.shape[2:], mode="nearest"), own], dim=1)
            inner = block(both if step < len(finer) - 1 else self.mixer(both))
        levels = [inner]
        for downsample, block, own in zip(self.downsamples, self.bottom_up_blocks, reversed(reduced), strict=True):
            levels.append(block(torch.cat([downsample(levels[-1]), own], dim=1)))
        if len(self.fusions):
            levels = [fusion(levels) for fusion in self.fusions]
        if len(self.projections):
            levels = [project(level) for project, level in zip(self.projections, levels, strict=True)]
        return levels

    def fuse(self, dtype: torch.dtype) -> nn.Module:
        """The same as fewer operations, to predict with; raises `CannotFuse` where a layer is of another kind."""
        return with_fused_parts(self, (CSPPAFPN, ASFF, GSConv, GSLayer, *YOLO_KINDS), dtype)


def _projection(config: CSPPAFPNConfig, inputs: int, outputs: int) -> nn.Module:
    return yolo_conv(inputs, outputs, 1) if config.gsconv == "none" else GSConv(inputs, outputs, 1)


def _downsample(config: CSPPAFPNConfig, width: int) -> nn.Module:
    return (
        conv3x3(width, width, 2, depthwise=config.depthwise) if config.gsconv == "none" else GSConv(width, width, 3, 2)
    )


def _layer(config: CSPPAFPNConfig, inputs: int, outputs: int) -> nn.Module:
    if config.gsconv == "all":
        return GSLayer(inputs, outputs, config.blocks)
    return CSPLayer(inputs, outputs, config.blocks, add=False, depthwise=config.depthwise)
