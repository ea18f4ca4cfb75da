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
        self.alignment: _Alignment | None = None
        if any(branch is not None for branch in head.alignments):
            self.alignment = _Alignment(head, dtype)

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
        hidden = None if self.alignment is None else self.alignment.hidden(layers)
        del layers, features  # the most memory that a network of this kind holds at once
        alignment, offsets = (None, None) if self.alignment is None else self.alignment(hidden)
        scores = _scores(logits, alignment)
        boxes = decoded_boxes(regression.float(), self.scales[level], priors, self.config.anchor)
        return scores, aligned_boxes(boxes, offsets) * self.strides[level]


class _Alignment(nn.Module):
    """Both branches of a head's alignment, or the one that it has, read from the trunk together."""

    def __init__(self, head: THead, dtype: torch.dtype) -> None:
        super().__init__()
        self.outputs = [
            0 if branch is None else outputs for branch, outputs in zip(head.alignments, (1, 8), strict=True)
        ]
        first, second = _joined([branch for branch in head.alignments if branch is not None])
        weight = first.weight.view(len(first.weight), len(head.interactive), -1)
        self.weight = weight.permute(1, 2, 0).to(dtype).contiguous()[:, None]
        assert first.bias is not None
        self.bias = first.bias.to(dtype)
        self.output = fused(second, None, False, dtype)

    def hidden(self, layers: Sequence[Tensor]) -> Tensor:
        """The trunk's layers [B, C, h, w] -> [B, hidden, h, w]."""
        return _weighted_sum(layers, self.weight, self.bias).relu_()

    def forward(self, hidden: Tensor) -> tuple[Tensor | None, Tensor | None]:
        """M [B, 1, h, w] of equation 4 and the offsets [B, 8, h, w] of equation 5, fp32; None where there are none."""
        parts = self.output(hidden).float().split(self.outputs, dim=1)
        alignment, offsets = (part if size else None for part, size in zip(parts, self.outputs, strict=True))
        return alignment, offsets


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


def _scores(logits: Tensor, alignment: Tensor | None) -> Tensor:
    """`aligned_scores`, which needs no gradient here: [B, C, h, w] logits, [B, 1, h, w] M -> [B, h * w, C] fp32."""
    if alignment is None:
        return rows_of(logits).sigmoid_()
    # Each root for itself: a product of two small probabilities may be less than fp32 holds.
    return rows_of(logits).sigmoid_().sqrt_().mul_(rows_of(alignment).sigmoid_().sqrt_())


def _joined(branches: Sequence[nn.Module]) -> tuple[nn.Conv2d, nn.Conv2d]:
    """One or two branches of convolution, ReLU, convolution on the same input as one of the width of all."""
    known_branches = [known(branch, nn.Sequential) for branch in branches]
    if any(len(branch) != 3 for branch in known_branches):
        raise CannotFuse("an alignment branch of other layers")
    for branch in known_branches:
        known(branch[1], nn.ReLU)
    first = stacked(known_branches[0][0], known_branches[1][0] if len(branches) > 1 else None)
    convs = [known(branch[2], nn.Conv2d) for branch in known_branches]
    if (
        not is_pointwise(first)
        or first.bias is None
        or any(not keeps_size_3x3(conv) or conv.bias is None for conv in convs)
    ):
        raise CannotFuse("an alignment branch of another geometry")
    inputs, outputs = sum(conv.in_channels for conv in convs), sum(conv.out_channels for conv in convs)
    second = nn.Conv2d(inputs, outputs, 3, padding=1)
    second.requires_grad_(False).to(first.weight.device)
    assert second.bias is not None
    second.weight.zero_()
    row = column = 0
    for conv in convs:
        assert conv.bias is not None
        second.weight[row : row + conv.out_channels, column : column + conv.in_channels] = conv.weight
        second.bias[row : row + conv.out_channels] = conv.bias
        row, column = row + conv.out_channels, column + conv.in_channels
    return first, second
