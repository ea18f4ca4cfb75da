"""YOLOX's decoupled head, and YOLOX-PAI's: behind a trunk in common, of which each task takes its own part."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import torch
from torch import Tensor, nn

from tood.boxes import decode_cells
from tood.models.common.fused_parts import with_fused_parts
from tood.models.common.layers import PRIOR_BIAS, ConvNormReLU, init_normal
from tood.models.common.priors import grid_priors
from tood.models.common.rep_block import RepBlock
from tood.models.common.sizes import MOST_CHANNELS, MOST_LAYERS, require_whole
from tood.models.common.task_decomposition import TaskDecomposition, trunks
from tood.models.common.yolo_blocks import YOLO_KINDS, conv3x3, init_convolutions, yolo_conv, yolo_norm
from tood.structures import DensePredictions

TowerBlock: TypeAlias = Literal["plain", "depthwise", "rep"]
"""What a task's tower is made of: 3x3 convolutions, depthwise separable ones, or RepVGG's blocks."""


@dataclass(frozen=True)
class YOLOXHeadConfig:
    """Shape of the head; the defaults are YOLOX-L's.

    Attributes:
        width: channels of every layer.
        tower_layers: 3x3 convolutions of each of the two towers of a level.
        tower_block: see `TowerBlock`.
        objectness: whether the regression tower also predicts how likely there is an object at all; it is learnt under
            the SimOTA criterion, or as centerness under ATSS's.
        interactive_layers: 3x3 convolutions of a trunk before the towers, shared by the levels; each tower then begins
            with what its task takes from all of them (YOLOX-PAI: 3 or 6). None in YOLOX.
        norm_groups: groups of every GroupNorm of the trunk and of the tasks.
        attention_reduction: the layer attention has `width` divided by this hidden channels.
    """

    width: int = 256
    tower_layers: int = 2
    tower_block: TowerBlock = "plain"
    objectness: bool = True
    interactive_layers: int = 0
    norm_groups: int = 32
    attention_reduction: int = 32

    def __post_init__(self) -> None:
        require_whole("model.head.width", self.width, MOST_CHANNELS)
        require_whole("model.head.tower_layers", self.tower_layers, MOST_LAYERS, least=0)
        require_whole("model.head.interactive_layers", self.interactive_layers, MOST_LAYERS, least=0)
        require_whole("model.head.norm_groups", self.norm_groups, MOST_CHANNELS)
        require_whole("model.head.attention_reduction", self.attention_reduction, MOST_CHANNELS)


class YOLOXHead(nn.Module):
    """Dense predictions from the pyramid's levels; all weights but the trunk's are a level's own.

    Args:
        config: its shape.
        classes: number of classes.
        inputs: channels of each level.
        strides: input pixels a cell of each level.
    """

    def __init__(self, config: YOLOXHeadConfig, classes: int, inputs: Sequence[int], strides: Sequence[int]) -> None:
        super().__init__()
        self.config = config
        self.strides = tuple(strides)
        width, levels = config.width, range(len(inputs))
        self.stems = nn.ModuleList(yolo_conv(channels, width, 1) for channels in inputs)
        self.interactive = nn.ModuleList(
            ConvNormReLU(width, width, config.norm_groups) for _ in range(config.interactive_layers)
        )
        self.classification_decompositions = nn.ModuleList(_decomposition(config) for _ in levels)
        self.regression_decompositions = nn.ModuleList(_decomposition(config) for _ in levels)
        self.classification_towers = nn.ModuleList(_tower(config) for _ in levels)
        self.regression_towers = nn.ModuleList(_tower(config) for _ in levels)
        self.class_predictors = nn.ModuleList(nn.Conv2d(width, classes, 1) for _ in levels)
        self.box_predictors = nn.ModuleList(nn.Conv2d(width, 4, 1) for _ in levels)
        self.objectness_predictors = nn.ModuleList(nn.Conv2d(width, 1, 1) for _ in levels if config.objectness)
        self._initialise()

    def forward(self, maps: Sequence[Tensor]) -> DensePredictions:
        """One map [B, inputs, h, w] a level -> N = sum of h * w predictions; all fp32, scores and quality logits."""
        stems = [stem(features) for stem, features in zip(self.stems, maps, strict=True)]
        seen = trunks(self.interactive, stems) if len(self.interactive) else stems
        scores, sides, quality = [], [], []
        for level, features in enumerate(seen):
            classified = self.classification_towers[level](self.classification_decompositions[level](features))
            regressed = self.regression_towers[level](self.regression_decompositions[level](features))
            scores.append(self.class_predictors[level](classified).float().flatten(2))  # [B, C, hw]
            # Coordinates need all of fp32's bits.
            sides.append(self.box_predictors[level](regressed).float().flatten(2))  # [B, 4, hw]
            if len(self.objectness_predictors):
                quality.append(self.objectness_predictors[level](regressed).float().flatten(1))  # [B, hw]
        priors = grid_priors(maps, self.strides, anchor_scale=1.0)
        predicted = torch.cat(sides, 2).transpose(1, 2)  # [B, N, 4]
        return DensePredictions(
            scores=torch.cat(scores, 2).transpose(1, 2),  # [B, N, C]
            boxes=decode_cells(priors.centres, priors.strides, predicted),
            priors=priors,
            logits=True,
            quality=torch.cat(quality, 1) if quality else None,  # [B, N]
        )

    def fuse(self, dtype: torch.dtype) -> nn.Module:
        """The same as fewer operations, to predict with; raises `CannotFuse` where a part is of another kind."""
        return with_fused_parts(self, (YOLOXHead, *YOLO_KINDS), dtype)

    def _initialise(self) -> None:
        init_convolutions(self)
        for decomposition in (*self.classification_decompositions, *self.regression_decompositions):
            if isinstance(decomposition, TaskDecomposition) and decomposition.attention is not None:
                init_normal(decomposition.attention, std=0.001)
        for predictor in (*self.class_predictors, *self.objectness_predictors):
            assert isinstance(predictor, nn.Conv2d)
            assert predictor.bias is not None
            nn.init.constant_(predictor.bias, PRIOR_BIAS)


def _decomposition(config: YOLOXHeadConfig) -> nn.Module:
    if not config.interactive_layers:
        return nn.Identity()
    return TaskDecomposition(config.width, config.interactive_layers, config.norm_groups, config.attention_reduction)


def _tower(config: YOLOXHeadConfig) -> nn.Sequential:
    def block() -> nn.Module:
        if config.tower_block == "rep":
            return RepBlock(config.width, config.width, identity=True, norm=yolo_norm)
        return conv3x3(config.width, config.width, depthwise=config.tower_block == "depthwise")

    return nn.Sequential(*(block() for _ in range(config.tower_layers)))
