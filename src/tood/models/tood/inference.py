"""The task-aligned head of a network that no longer learns."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from tood.models.common.deform_conv import fused
from tood.models.common.layers import InferenceConvNormReLU, InferenceGroupNormReLU
from tood.models.common.priors import grid_priors
from tood.models.common.stacked import cells_of, rows_of, stacked
from tood.models.common.task_decomposition import TaskDecomposition, WeightedReduction
from tood.models.tood.head import THead, aligned_boxes, decoded_boxes, level_priors
from tood.ops import CannotFuse, known
from tood.ops.conv_gradients import is_pointwise, keeps_size_3x3
from tood.structures import DensePredictions, Priors


class InferenceTHead(nn.Module):
    """`THead` without gradient: the trunk's layers are never copied into one, and read by all branches together."""

    def __init__(self, head: THead, dtype: torch.dtype) -> None:
        super().__init__()
        known(head, THead)
        self.config, self.strides = head.config, head.strides
        self.scales = [scale.detach().clone() for scale in head.scales]
        self.dtype = dtype
        self.interactive = nn.ModuleList()
        for layer in head.interactive:
            self.interactive.append(InferenceConvNormReLU(layer, dtype))
        tasks = [
            known(task, TaskDecomposition)
            for task in (head.classification_decomposition, head.regression_decomposition)
        ]
        self.reductions = nn.ModuleList(WeightedReduction(task) for task in tasks)
        self.norms = nn.ModuleList(InferenceGroupNormReLU(task.norm) for task in tasks)
        self.classifier = fused(head.classifier, None, False, dtype)
        self.regressor = fused(head.regressor, None, False, dtype)
        first, second = _joined(head.classification_alignment, head.regression_alignment)
        outputs = len(first.weight)
        self.alignment = first.weight.view(outputs, len(self.interactive), -1).permute(1, 2, 0).to(dtype).contiguous()
        assert first.bias is not None
        self.alignment_bias = first.bias.to(dtype)
        self.alignment_output = fused(second, None, False, dtype)

    def forward(self, maps: Sequence[Tensor]) -> DensePredictions:
        """One map [B, inputs, h, w] a level -> N = sum of h * w predictions; scores are probabilities."""
        priors = grid_priors(maps, self.strides, self.config.anchor_scale)
        scores, boxes = [], []
        for level, (features, own) in enumerate(zip(maps, level_priors(priors), strict=True)):
            level_scores, level_boxes = self._level(features, level, own)
            scores.append(level_scores)
            boxes.append(level_boxes.flatten(2))
        return DensePredictions(torch.cat(scores, 1), torch.cat(boxes, 2).transpose(1, 2), priors)

    def _level(self, features: Tensor, level: int, priors: Priors) -> tuple[Tensor, Tensor]:
        """Scores [B, h * w, C] and boxes [B, 4, h, w] in input pixels."""
        layers: list[Tensor] = []
        # The C library hardly ever gives a map's memory to another one of the same size.
        convolved: Tensor | None = None
        for interactive in self.interactive:
            assert isinstance(interactive, InferenceConvNormReLU)
            convolved = interactive.conv(features, reused=convolved)
            features = interactive.norm(convolved)
            layers.append(features)
        average = torch.cat([layer.mean(dim=(2, 3), dtype=torch.float32) for layer in layers], dim=1)  # [B, L * C]
        logits, regression = (
            predictor(norm(_weighted_sum(layers, reduction(average).to(self.dtype), reused=convolved)))
            for reduction, norm, predictor in zip(
                self.reductions, self.norms, (self.classifier, self.regressor), strict=True
            )
        )
        hidden = _weighted_sum(layers, self.alignment[:, None], self.alignment_bias).relu_()
        del layers, features  # the most memory that a network of this kind holds at once
        alignment, offsets = self.alignment_output(hidden).float().split((1, 8), dim=1)
        scores = _scores(logits, alignment)
        boxes = decoded_boxes(regression.float(), self.scales[level], priors, self.config.anchor)
        return scores, aligned_boxes(boxes, offsets) * self.strides[level]


def _weighted_sum(
    layers: Sequence[Tensor], weights: Tensor, bias: Tensor | None = None, reused: Tensor | None = None
) -> Tensor:
    """The 1x1 convolution of all layers [B, C, h, w] together, weights [L, B or 1, C, O] -> [B, O, h, w].

    `reused`, of the output's shape, is overwritten and given back; it goes with no bias.
    """
    batch, _, height, width = layers[0].shape
    out: Tensor | None = None
    for layer, weight in zip(layers, weights, strict=True):
        rows = cells_of(layer)
        weight = weight.expand(batch, -1, -1)
        if out is not None:
            out.baddbmm_(rows, weight)
        elif bias is None:
            out = torch.bmm(rows, weight, out=None if reused is None else cells_of(reused))
        else:
            out = torch.baddbmm(bias, rows, weight)
    assert out is not None
    return out.view(batch, height, width, -1).permute(0, 3, 1, 2)


def _scores(logits: Tensor, alignment: Tensor) -> Tensor:
    """`aligned_scores`, which needs no gradient here: [B, C, h, w] logits, [B, 1, h, w] M -> [B, h * w, C] fp32."""
    # Each root for itself: a product of two small probabilities may be less than fp32 holds.
    return rows_of(logits).sigmoid_().sqrt_().mul_(rows_of(alignment).sigmoid_().sqrt_())


def _joined(one: nn.Sequential, other: nn.Sequential) -> tuple[nn.Conv2d, nn.Conv2d]:
    """Two branches of convolution, ReLU, convolution on the same input as one of twice the width."""
    branches = [known(branch, nn.Sequential) for branch in (one, other)]
    if any(len(branch) != 3 for branch in branches):
        raise CannotFuse("an alignment branch of other layers")
    for branch in branches:
        known(branch[1], nn.ReLU)
    first = stacked(branches[0][0], branches[1][0])
    a, b = (known(branch[2], nn.Conv2d) for branch in branches)
    if not is_pointwise(first) or any(not keeps_size_3x3(conv) or conv.bias is None for conv in (a, b)):
        raise CannotFuse("an alignment branch of another geometry")
    assert a.bias is not None
    assert b.bias is not None
    second = nn.Conv2d(a.in_channels + b.in_channels, a.out_channels + b.out_channels, 3, padding=1)
    second.requires_grad_(False).to(a.weight.device)
    assert second.bias is not None
    second.weight.zero_()
    second.weight[: len(a.weight), : a.in_channels] = a.weight
    second.weight[len(a.weight) :, a.in_channels :] = b.weight
    second.bias.copy_(torch.cat([a.bias, b.bias]))
    return first, second
