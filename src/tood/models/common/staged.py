"""Backbones that are a stem and stages in a row, some of whose maps are given."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from tood.models.common.conv_block import with_fused_parts


class StagedBackbone(nn.Module):
    """A stem and stages `stage1`, `stage2`, ... in a row.

    Args:
        stem: from the image.
        stages: each from what is before it.
        outputs: numbers of the stages whose maps are given, the first stage being 0.
    """

    def __init__(self, stem: nn.Module, stages: Sequence[nn.Module], outputs: Sequence[int]) -> None:
        super().__init__()
        self.stem = stem
        self.stage_names = [f"stage{number}" for number in range(1, len(stages) + 1)]
        self.outputs = tuple(outputs)
        for name, stage in zip(self.stage_names, stages, strict=True):
            self.add_module(name, stage)

    def forward(self, images: Tensor) -> list[Tensor]:
        """[B, 3, H, W] normalised -> the chosen stages' maps [B, C, H / stride, W / stride]."""
        x = self.stem(images)
        maps = []
        for number, name in enumerate(self.stage_names):
            x = getattr(self, name)(x)
            if number in self.outputs:
                maps.append(x)
        return maps

    def stages(self) -> list[list[nn.Module]]:
        """Its parts from the image on, the stem first: what is frozen, and learns at a rate of its own, together."""
        return [[self.stem], *([getattr(self, name)] for name in self.stage_names)]

    def fuse(self, dtype: torch.dtype) -> nn.Module:
        """The same as fewer operations, to predict with; raises `CannotFuse` where a part is of another kind."""
        return InferenceStagedBackbone(with_fused_parts(self, StagedBackbone, dtype), dtype)


class InferenceStagedBackbone(nn.Module):
    """A backbone whose parts only predict, in their arithmetic and memory layout."""

    def __init__(self, backbone: StagedBackbone, dtype: torch.dtype) -> None:
        super().__init__()
        self.backbone, self.dtype = backbone, dtype

    def forward(self, images: Tensor) -> list[Tensor]:
        """[B, 3, H, W] normalised -> the chosen stages' maps [B, C, H / stride, W / stride]."""
        maps: list[Tensor] = self.backbone(images.to(self.dtype, memory_format=torch.channels_last))
        return maps
