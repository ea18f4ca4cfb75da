"""Feature pyramid network (Lin et al. 2017) with extra levels on its own output."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tood.errors import ToodError
from tood.models.common.sizes import MOST_CHANNELS, MOST_LEVELS, require_whole
from tood.ops import fused_conv, known, shared_conv


@dataclass(frozen=True)
class FPNConfig:
    """Shape of the pyramid.

    Attributes:
        width: channels of every level.
        levels: levels given; those beyond the backbone's maps are made by 3x3 convolutions of stride 2, the first on
            the coarsest output (P6 on P5), each further one on the one before, without an activation between.
    """

    # Files from before there was another neck name no kind.
    UNNAMED_KIND: ClassVar[bool] = True

    width: int = 256
    levels: int = 5
    kind: Literal["fpn"] = "fpn"

    def __post_init__(self) -> None:
        require_whole("model.neck.width", self.width, MOST_CHANNELS)
        require_whole("model.neck.levels", self.levels, MOST_LEVELS)

    def channels(self, maps: Sequence[int]) -> tuple[int, ...]:
        """Channels of each level, whatever those of the backbone's maps."""
        return (self.width,) * self.levels

    def strides(self, maps: Sequence[int]) -> tuple[int, ...]:
        """Input pixels a cell of each level, of those of the backbone's maps, fine to coarse."""
        return tuple(maps[0] * 2**level for level in range(self.levels))

    def divisor(self, strides: Sequence[int]) -> int:
        """What the sides of images are multiples of, of the backbone's strides."""
        return 1

    @property
    def one_width(self) -> str:
        """How all levels get the same number of channels."""
        return "set model.neck.width"

    def build(self, channels: Sequence[int]) -> FPN:
        """The neck on maps of so many channels, with freshly initialised weights."""
        return FPN(self, channels)


class FPN(nn.Module):
    """Carries the coarse maps' meaning down to the fine ones."""

    def __init__(self, config: FPNConfig, channels: Sequence[int]) -> None:
        super().__init__()
        extra = config.levels - len(channels)
        if extra < 0:
            raise ToodError(
                f"model.neck.levels is {config.levels}, fewer than the {len(channels)} maps of model.backbone.outputs: "
                "raise the one or shorten the other"
            )
        self.laterals = nn.ModuleList(nn.Conv2d(inputs, config.width, 1) for inputs in channels)
        self.outputs = nn.ModuleList(nn.Conv2d(config.width, config.width, 3, padding=1) for _ in channels)
        self.extras = nn.ModuleList(nn.Conv2d(config.width, config.width, 3, 2, padding=1) for _ in range(extra))
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.xavier_uniform_(module.weight)
                assert module.bias is not None
                nn.init.zeros_(module.bias)

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """The backbone's maps, fine to coarse -> `levels` maps of `width` channels; on a CPU differentiable once."""
        merged = [lateral(features) for lateral, features in zip(self.laterals, maps, strict=True)]
        for fine in range(len(merged) - 2, -1, -1):
            coarse = F.interpolate(merged[fine + 1], size=merged[fine].shape[2:], mode="nearest")
            merged[fine] = merged[fine] + coarse
        pyramid = []
        for output, features in zip(self.outputs, merged, strict=True):
            pyramid += shared_conv(output, [features])
        for extra in self.extras:
            pyramid.append(_in_full_precision(extra, pyramid[-1]))
        return pyramid

    def fuse(self, dtype: torch.dtype) -> InferenceFPN:
        """The same as fewer operations, to predict with; raises `CannotFuse` where a layer is of another kind."""
        return InferenceFPN(self, dtype)


class InferenceFPN(nn.Module):
    """`FPN` without gradient.

    Raises:
        CannotFuse: if a layer of the pyramid is of another kind.
    """

    def __init__(self, neck: FPN, dtype: torch.dtype) -> None:
        super().__init__()
        known(neck, FPN)
        self.laterals = _fused_all(neck.laterals, dtype)
        self.outputs = _fused_all(neck.outputs, dtype)
        self.extras = _fused_all(neck.extras, dtype)

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """The backbone's maps, fine to coarse -> `levels` maps of `width` channels."""
        merged = [self.laterals[-1](maps[-1])]
        for lateral, features in zip(reversed(self.laterals[:-1]), reversed(maps[:-1]), strict=True):
            coarse = F.interpolate(merged[0], size=features.shape[2:], mode="nearest")
            merged.insert(0, lateral(features, coarse))
        pyramid = [output(features) for output, features in zip(self.outputs, merged, strict=True)]
        for extra in self.extras:
            pyramid.append(extra(pyramid[-1]))
        return pyramid


def _fused_all(layers: nn.ModuleList, dtype: torch.dtype) -> nn.ModuleList:
    return nn.ModuleList(fused_conv(known(layer, nn.Conv2d), None, False, dtype) for layer in layers)


def _in_full_precision(conv: nn.Module, features: Tensor) -> Tensor:
    """The convolution without CPU autocast.

    In bf16, oneDNN leaves parts of a strided convolution's weight gradient unwritten where a map is one cell wide, as
    the coarsest levels of small images are (seen with torch 2.13); these maps are small, fp32 costs nothing here.
    """
    if features.device.type != "cpu" or not torch.is_autocast_enabled("cpu"):
        return conv(features)  # type: ignore[no-any-return]
    with torch.autocast("cpu", enabled=False):
        return conv(features.float())  # type: ignore[no-any-return]
