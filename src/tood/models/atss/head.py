"""The parallel head (RetinaNet's and FCOS's, as ATSS has it): a tower of convolutions for each task, none in common."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from tood.boxes import decode_deltas
from tood.models.common.layers import PRIOR_BIAS, ConvNormReLU, init_normal
from tood.models.common.priors import DELTA_STDS, grid_priors
from tood.structures import DensePredictions


@dataclass(frozen=True)
class ATSSHeadConfig:
    """Shape of the head; the defaults are the published ones.

    Attributes:
        width: channels of every tower layer.
        tower_layers: 3x3 convolutions of each of the two towers.
        norm_groups: groups of every GroupNorm.
        anchor_scale: side of the square anchors, in strides.
        centerness: whether the regression tower also predicts how central its prior lies in the object; it is learnt
            under the ATSS criterion alone.
    """

    width: int = 256
    tower_layers: int = 4
    norm_groups: int = 32
    anchor_scale: float = 8.0
    centerness: bool = True


class ATSSHead(nn.Module):
    """Dense predictions from the pyramid's levels; all weights but the delta scales are shared by the levels."""

    def __init__(self, config: ATSSHeadConfig, classes: int, inputs: int, strides: Sequence[int]) -> None:
        super().__init__()
        self.config = config
        self.strides = tuple(strides)
        self.classification_tower = _tower(config, inputs)
        self.regression_tower = _tower(config, inputs)
        self.classifier = nn.Conv2d(config.width, classes, 3, padding=1)
        self.regressor = nn.Conv2d(config.width, 4, 3, padding=1)
        self.centerness = nn.Conv2d(config.width, 1, 3, padding=1) if config.centerness else None
        self.scales = nn.ParameterList(nn.Parameter(torch.tensor(1.0)) for _ in self.strides)
        init_normal(self, std=0.01)
        assert self.classifier.bias is not None
        nn.init.constant_(self.classifier.bias, PRIOR_BIAS)

    def forward(self, maps: Sequence[Tensor]) -> DensePredictions:
        """One map [B, inputs, h, w] a level -> N = sum of h * w predictions; all fp32, scores and quality logits."""
        scores, deltas, quality = [], [], []
        for features, scale in zip(maps, self.scales, strict=True):
            scores.append(self.classifier(self.classification_tower(features)).float().flatten(2))  # [B, C, hw]
            features = self.regression_tower(features)
            # Coordinates need all of fp32's bits.
            deltas.append((self.regressor(features).float() * scale).flatten(2))  # [B, 4, hw]
            if self.centerness is not None:
                quality.append(self.centerness(features).float().flatten(1))  # [B, hw]
        priors = grid_priors(maps, self.strides, self.config.anchor_scale)
        return DensePredictions(
            scores=torch.cat(scores, 2).transpose(1, 2),  # [B, N, C]
            boxes=decode_deltas(priors.boxes, torch.cat(deltas, 2).transpose(1, 2), DELTA_STDS),  # [B, N, 4]
            priors=priors,
            logits=True,
            quality=torch.cat(quality, 1) if quality else None,  # [B, N]
        )

    def fuse(self, dtype: torch.dtype) -> nn.Module:
        """The same as fewer operations, to predict with; raises `CannotFuse` where a part is of another kind."""
        from tood.models.atss.inference import InferenceATSSHead

        return InferenceATSSHead(self, dtype)


def _tower(config: ATSSHeadConfig, inputs: int) -> nn.Sequential:
    return nn.Sequential(
        *(
            ConvNormReLU(inputs if layer == 0 else config.width, config.width, config.norm_groups)
            for layer in range(config.tower_layers)
        )
    )
