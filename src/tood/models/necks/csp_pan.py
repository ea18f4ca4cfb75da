"""CSPPAN: PP-YOLOE's neck (Xu et al. 2022), a path aggregation network of CSP stages that merge for inference."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tood.errors import SettingError
from tood.models.common.csp import CSP_KINDS, CSPStage, PyramidPooling, RepResidual, conv_norm_silu, start_csp
from tood.models.common.fused_parts import with_fused_parts
from tood.models.common.sizes import MOST_CHANNELS, MOST_LAYERS, MOST_LEVELS, require_each, require_whole
from tood.ops import known

_WIDTHS, _BLOCKS = (192, 384, 768), 3


@dataclass(frozen=True)
class CSPPANConfig:
    """Shape of the neck; the defaults are those of PP-YOLOE-l.

    Attributes:
        widths: channels of each level that it gives, fine to coarse; as many as the maps that it takes.
        blocks: residual blocks in each of its stages.
    """

    # Of the family that it came with, a configuration need not say it.
    UNNAMED_KIND: ClassVar[bool] = True

    widths: tuple[int, ...] = _WIDTHS
    blocks: int = _BLOCKS
    kind: Literal["csp_pan"] = "csp_pan"

    def __post_init__(self) -> None:
        require_each("model.neck.widths", self.widths, MOST_CHANNELS, MOST_LEVELS, least=2)
        require_whole("model.neck.blocks", self.blocks, MOST_LAYERS)

    @staticmethod
    def scaled(width: float, depth: float) -> CSPPANConfig:
        """The published shape with its channels and its blocks multiplied, in whole numbers of at least 1."""
        return CSPPANConfig(
            widths=tuple(max(round(channels * width), 1) for channels in _WIDTHS), blocks=max(round(_BLOCKS * depth), 1)
        )

    def channels(self, maps: Sequence[int]) -> tuple[int, ...]:
        """Channels of each level, whatever those of the backbone's maps."""
        return self.widths

    def strides(self, maps: Sequence[int]) -> tuple[int, ...]:
        """Input pixels a cell of each level: those of the backbone's maps."""
        return tuple(maps)

    def divisor(self, strides: Sequence[int]) -> int:
        """What the sides of images are multiples of, of the backbone's strides."""
        return 1

    @property
    def one_width(self) -> str:
        """How all levels get the same number of channels."""
        return "set model.neck.widths to one number repeated"

    def build(self, channels: Sequence[int]) -> CSPPAN:
        """The neck on maps of so many channels, with freshly initialised weights."""
        return CSPPAN(self, channels)


class CSPPAN(nn.Module):
    """Carries the coarse maps' meaning down to the fine ones, and the fine ones' places back up.

    Its lists count from the coarsest level, with which the way down begins.
    """

    def __init__(self, config: CSPPANConfig, channels: Sequence[int]) -> None:
        super().__init__()
        if len(config.widths) != len(channels):
            raise SettingError(
                "model.neck.widths",
                f"is {list(config.widths)}, but the backbone gives {len(channels)} maps: give one width a map",
            )
        widths, blocks = config.widths[::-1], config.blocks
        # What comes down to a level is half as wide as the level that it comes from.
        inputs = [maps + (widths[i - 1] // 2 if i else 0) for i, maps in enumerate(channels[::-1])]
        self.down = nn.ModuleList(_stage(inputs[i], width, blocks, pooling=i == 0) for i, width in enumerate(widths))
        self.down_routes = nn.ModuleList(conv_norm_silu(width, width // 2, 1) for width in widths[:-1])
        self.up = nn.ModuleList(_stage(coarse + fine, coarse, blocks) for coarse, fine in pairwise(widths))
        self.up_routes = nn.ModuleList(conv_norm_silu(fine, fine, 3, 2) for fine in widths[1:])
        start_csp(self)

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """The backbone's maps, fine to coarse -> as many of the configured widths, each twice as fine as the next."""
        merged: list[Tensor] = []
        for level, features in enumerate(reversed(maps)):
            if level:
                # Nearest, to exactly twice the size where sizes are whole strides.
                route = F.interpolate(self.down_routes[level - 1](merged[-1]), size=features.shape[2:], mode="nearest")
                features = torch.cat([route, features], dim=1)
            merged.append(self.down[level](features))
        pyramid = [merged[-1]]
        for level in range(len(merged) - 2, -1, -1):
            route = self.up_routes[level](pyramid[-1])
            pyramid.append(self.up[level](torch.cat([route, merged[level]], dim=1)))
        return pyramid

    def fuse(self, dtype: torch.dtype) -> nn.Module:
        """The same as fewer operations, to predict with; raises `CannotFuse` where a layer is of another kind."""
        return with_fused_parts(known(self, CSPPAN), (CSPPAN, *CSP_KINDS), dtype)


def _stage(inputs: int, outputs: int, blocks: int, pooling: bool = False) -> CSPStage:
    """Residual blocks without shortcuts; in the middle of them, where asked, pooling over windows of several sides."""
    half = outputs // 2
    layers: dict[str, nn.Module] = {}
    for i in range(blocks):
        layers[str(i)] = RepResidual(half, shortcut=False, alpha=False)
        if pooling and i == (blocks - 1) // 2:
            layers["pooling"] = PyramidPooling(half)
    return CSPStage(inputs, outputs, half, layers, attention=False)
