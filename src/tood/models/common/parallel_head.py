"""The parallel head (RetinaNet's and FCOS's, as ATSS, PAA and GFL have it): a tower of convolutions for each task."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import Tensor, nn

from tood.boxes import decode_deltas, decode_distances
from tood.models.common.deform_conv import fused
from tood.models.common.distribution import expected_bins, side_distributions
from tood.models.common.layers import PRIOR_BIAS, ConvNormReLU, InferenceConvNormReLU, init_normal
from tood.models.common.priors import DELTA_STDS, grid_priors
from tood.models.common.sizes import MOST_ANCHOR_SCALE, MOST_CHANNELS, MOST_LAYERS, require_factor, require_whole
from tood.models.common.stacked import rows_of, stacked
from tood.ops import known
from tood.structures import DensePredictions, Priors

Decoder: TypeAlias = Callable[[Priors, Tensor], tuple[Tensor, Tensor | None]]
"""From N priors and what the regression branch gives, [B, N, K] fp32, to boxes [B, N, 4] in input pixels, and the
distributions [B, N, 4, R] of their sides, if there are some.
"""


@dataclass(frozen=True)
class ParallelHeadConfig:
    """Shape of the towers, to which each family adds what stands on them; the defaults are the published ones.

    Attributes:
        width: channels of every tower layer.
        tower_layers: 3x3 convolutions of each of the two towers.
        norm_groups: groups of every GroupNorm.
        anchor_scale: side of the square anchors, in strides; where boxes are distances, positives are found by them.
    """

    width: int = 256
    tower_layers: int = 4
    norm_groups: int = 32
    anchor_scale: float = 8.0

    def __post_init__(self) -> None:
        require_whole("model.head.width", self.width, MOST_CHANNELS)
        require_whole("model.head.tower_layers", self.tower_layers, MOST_LAYERS)
        require_whole("model.head.norm_groups", self.norm_groups, MOST_CHANNELS)
        require_factor("model.head.anchor_scale", self.anchor_scale, MOST_ANCHOR_SCALE)


@dataclass(frozen=True)
class RegressionBranches:
    """What stands on the regression tower, by the names that tell the families' tensors apart.

    Attributes:
        regressor: name of the branch that boxes are decoded from.
        channels: of that branch.
        decode: what these mean.
        quality: name of the branch that judges the boxes, None for no such branch.
    """

    regressor: str
    channels: int
    decode: Decoder
    quality: str | None = None


class ParallelHead(nn.Module):
    """Dense predictions from the pyramid's levels; all weights but the regression's scales are shared by the levels.

    Args:
        config: shape of the towers.
        classes: number of classes.
        inputs: channels of the pyramid's maps.
        strides: input pixels a cell, one a level.
        branches: what stands on the regression tower.
    """

    def __init__(
        self,
        config: ParallelHeadConfig,
        classes: int,
        inputs: int,
        strides: Sequence[int],
        branches: RegressionBranches,
    ) -> None:
        super().__init__()
        self.strides = tuple(strides)
        self.anchor_scale = config.anchor_scale
        self.branches = branches
        self.classification_tower = _tower(config, inputs)
        self.regression_tower = _tower(config, inputs)
        self.classifier = nn.Conv2d(config.width, classes, 3, padding=1)
        self.add_module(branches.regressor, nn.Conv2d(config.width, branches.channels, 3, padding=1))
        if branches.quality is not None:
            self.add_module(branches.quality, nn.Conv2d(config.width, 1, 3, padding=1))
        self.scales = nn.ParameterList(nn.Parameter(torch.tensor(1.0)) for _ in self.strides)
        init_normal(self, std=0.01)
        assert self.classifier.bias is not None
        nn.init.constant_(self.classifier.bias, PRIOR_BIAS)

    @property
    def quality_branch(self) -> nn.Module | None:
        """What judges the boxes, if the head has it."""
        return None if self.branches.quality is None else self.get_submodule(self.branches.quality)

    @property
    def regression_branch(self) -> nn.Module:
        """What boxes are decoded from."""
        return self.get_submodule(self.branches.regressor)

    def fuse(self, dtype: torch.dtype) -> nn.Module:
        """The same as fewer operations, to predict with; raises `CannotFuse` where a part is of another kind."""
        return InferenceParallelHead(self, dtype)

    def forward(self, maps: Sequence[Tensor]) -> DensePredictions:
        """One map [B, inputs, h, w] a level -> N = sum of h * w predictions; all fp32, scores and quality logits."""
        scores, regressions, quality = [], [], []
        regressor, judge = self.regression_branch, self.quality_branch
        for features, scale in zip(maps, self.scales, strict=True):
            scores.append(self.classifier(self.classification_tower(features)).float().flatten(2))  # [B, C, hw]
            features = self.regression_tower(features)
            # Coordinates need all of fp32's bits.
            regressions.append((regressor(features).float() * scale).flatten(2))  # [B, K, hw]
            if judge is not None:
                quality.append(judge(features).float().flatten(1))  # [B, hw]
        priors = grid_priors(maps, self.strides, self.anchor_scale)
        boxes, distributions = self.branches.decode(priors, torch.cat(regressions, 2).transpose(1, 2))
        return DensePredictions(
            scores=torch.cat(scores, 2).transpose(1, 2),  # [B, N, C]
            boxes=boxes,
            priors=priors,
            logits=True,
            quality=torch.cat(quality, 1) if quality else None,  # [B, N]
            distributions=distributions,
        )


class InferenceParallelHead(nn.Module):
    """A parallel head without gradient."""

    def __init__(self, head: ParallelHead, dtype: torch.dtype) -> None:
        super().__init__()
        known(head, ParallelHead)
        self.strides, self.anchor_scale, self.branches = head.strides, head.anchor_scale, head.branches
        self.scales = [scale.detach().clone() for scale in head.scales]
        self.classification_tower = _inference_tower(head.classification_tower, dtype)
        self.regression_tower = _inference_tower(head.regression_tower, dtype)
        self.classifier = fused(head.classifier, None, False, dtype)
        self.regressor = fused(stacked(head.regression_branch, head.quality_branch), None, False, dtype)

    def forward(self, maps: Sequence[Tensor]) -> DensePredictions:
        """One map [B, inputs, h, w] a level -> N = sum of h * w predictions; all fp32, scores and quality logits."""
        scores, regressions, quality = [], [], []
        channels = self.branches.channels
        for features, scale in zip(maps, self.scales, strict=True):
            scores.append(rows_of(self.classifier(self.classification_tower(features))))  # [B, hw, C]
            found = rows_of(self.regressor(self.regression_tower(features)))  # [B, hw, K or K + 1]
            regressions.append(found[..., :channels] * scale)
            quality.append(found[..., channels:])
        priors = grid_priors(maps, self.strides, self.anchor_scale)
        boxes, distributions = self.branches.decode(priors, torch.cat(regressions, 1))
        return DensePredictions(
            scores=torch.cat(scores, 1),  # [B, N, C]
            boxes=boxes,
            priors=priors,
            logits=True,
            quality=torch.cat(quality, 1).squeeze(2) if self.branches.quality is not None else None,  # [B, N]
            distributions=distributions,
        )


def boxes_from_deltas(priors: Priors, deltas: Tensor) -> tuple[Tensor, None]:
    """Boxes of the anchors' deltas [B, N, 4]; a `Decoder`."""
    return decode_deltas(priors.boxes, deltas, DELTA_STDS), None


def boxes_from_distributions(priors: Priors, regression: Tensor) -> tuple[Tensor, Tensor]:
    """Boxes whose sides lie where the distributions [B, N, 4 * R] expect them, and these; a `Decoder`."""
    distributions = side_distributions(regression)
    sides = expected_bins(distributions) * priors.strides[:, None]  # [B, N, 4] input pixels
    return decode_distances(priors.centres, sides), distributions


def _tower(config: ParallelHeadConfig, inputs: int) -> nn.Sequential:
    return nn.Sequential(
        *(
            ConvNormReLU(inputs if layer == 0 else config.width, config.width, config.norm_groups)
            for layer in range(config.tower_layers)
        )
    )


def _inference_tower(tower: nn.Sequential, dtype: torch.dtype) -> nn.Sequential:
    return nn.Sequential(*(InferenceConvNormReLU(layer, dtype) for layer in known(tower, nn.Sequential)))
