"""The parallel head of a network that no longer learns."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from tood.boxes import decode_deltas
from tood.models.atss.head import ATSSHead
from tood.models.common.deform_conv import fused
from tood.models.common.layers import InferenceConvNormReLU
from tood.models.common.priors import DELTA_STDS, grid_priors
from tood.models.common.stacked import rows_of, stacked
from tood.ops import known
from tood.structures import DensePredictions


class InferenceATSSHead(nn.Module):
    """`ATSSHead` without gradient."""

    def __init__(self, head: ATSSHead, dtype: torch.dtype) -> None:
        super().__init__()
        known(head, ATSSHead)
        self.config, self.strides = head.config, head.strides
        self.scales = [scale.detach().clone() for scale in head.scales]
        self.classification_tower = _tower(head.classification_tower, dtype)
        self.regression_tower = _tower(head.regression_tower, dtype)
        self.classifier = fused(head.classifier, None, False, dtype)
        self.has_quality = head.centerness is not None
        self.regressor = fused(stacked(head.regressor, head.centerness), None, False, dtype)

    def forward(self, maps: Sequence[Tensor]) -> DensePredictions:
        """One map [B, inputs, h, w] a level -> N = sum of h * w predictions; all fp32, scores and quality logits."""
        scores, deltas, quality = [], [], []
        for features, scale in zip(maps, self.scales, strict=True):
            scores.append(rows_of(self.classifier(self.classification_tower(features))))  # [B, hw, C]
            regression = rows_of(self.regressor(self.regression_tower(features)))  # [B, hw, 4 or 5]
            deltas.append(regression[..., :4] * scale)
            quality.append(regression[..., 4:].squeeze(2))
        priors = grid_priors(maps, self.strides, self.config.anchor_scale)
        return DensePredictions(
            scores=torch.cat(scores, 1),  # [B, N, C]
            boxes=decode_deltas(priors.boxes, torch.cat(deltas, 1), DELTA_STDS),  # [B, N, 4]
            priors=priors,
            logits=True,
            quality=torch.cat(quality, 1) if self.has_quality else None,  # [B, N]
        )


def _tower(tower: nn.Sequential, dtype: torch.dtype) -> nn.Sequential:
    return nn.Sequential(*(InferenceConvNormReLU(layer, dtype) for layer in known(tower, nn.Sequential)))
