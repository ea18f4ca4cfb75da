"""Backbones that are a stem and stages in a row, some of whose maps are given."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from typing_extensions import Self

from tood.models.backbones.staged import StagedBackbone
from tood.models.common.fused_parts import InferenceBackbone, with_fused_parts
from tood.models.common.published import PublishedFile
from tood.models.common.yolo_blocks import YOLO_KINDS


class WholeLearning:
    """What configurations of backbones without ImageNet's weights say of them: all of it learns in any case."""

    @property
    def imagenet_file(self) -> PublishedFile | None:
        """None: trained from scratch, or started from a published detector."""
        return None

    def from_scratch(self) -> Self:
        """The same."""
        return self

    def thawed(self) -> Self:
        """The same."""
        return self


class BackboneInStages(StagedBackbone):
    """A stem and stages `stage1`, `stage2`, ... in a row.

    Args:
        stem: from the image.
        stages: each from what is before it.
        outputs: numbers of the stages whose maps are given, the first stage being 0.
    """

    # Classes of its parts that have no weights of their own (`with_fused_parts`).
    KINDS = YOLO_KINDS

    def __init__(self, stem: nn.Module, stages: Sequence[nn.Module], outputs: Sequence[int]) -> None:
        super().__init__(frozen_stages=-1, norm_eval=False)
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
        return InferenceBackbone(with_fused_parts(self, (BackboneInStages, *self.KINDS), dtype), dtype)
