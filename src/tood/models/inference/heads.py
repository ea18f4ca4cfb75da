"""Heads of networks that no longer learn."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tood.boxes import decode_deltas
from tood.models.atss.head import ATSSHead
from tood.models.common.layers import ConvNormReLU
from tood.models.common.priors import DELTA_STDS, grid_priors
from tood.models.inference.convolution import folded
from tood.models.tood.head import TaskDecomposition, THead, aligned_boxes, decoded_boxes, level_priors
from tood.structures import DensePredictions, Priors


class InferenceConvNormReLU(nn.Module):
    """Convolution, GroupNorm, ReLU."""

    def __init__(self, layer: ConvNormReLU, dtype: torch.dtype) -> None:
        super().__init__()
        self.conv = folded(layer.conv, None, False, dtype, sees_all_levels=True)
        self.norm = _Norm(layer.norm)

    def forward(self, x: Tensor) -> Tensor:
        """[B, inputs, H, W] -> [B, outputs, H, W]."""
        return self.norm(self.conv(x))  # type: ignore[no-any-return]


class _Norm(nn.Module):
    """GroupNorm, in fp32 inside, and ReLU."""

    def __init__(self, norm: nn.GroupNorm) -> None:
        super().__init__()
        self.groups, self.eps = norm.num_groups, norm.eps
        self.weight, self.bias = norm.weight.detach().clone(), norm.bias.detach().clone()

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W] -> the same."""
        weight, bias = (self.weight, self.bias) if x.device.type == "cpu" else (self.weight.to(x), self.bias.to(x))
        return F.group_norm(x, self.groups, weight, bias, self.eps).relu_()


class _Attention(nn.Module):
    """A task's weights of the trunk's layers, folded into its reduction (equations 1 and 2)."""

    def __init__(self, decomposition: TaskDecomposition) -> None:
        super().__init__()
        first, second = decomposition.attention[0], decomposition.attention[2]
        assert isinstance(first, nn.Conv2d)
        assert isinstance(second, nn.Conv2d)
        assert first.bias is not None
        assert second.bias is not None
        self.first, self.first_bias = first.weight.detach().flatten(1).clone(), first.bias.detach().clone()
        self.second, self.second_bias = second.weight.detach().flatten(1).clone(), second.bias.detach().clone()
        weight = decomposition.reduction.weight.detach()
        # [L, C, O]: a matrix a layer.
        self.layers = weight.view(len(weight), decomposition.layers, -1).permute(1, 2, 0).contiguous()

    def forward(self, average: Tensor) -> Tensor:
        """Spatial average of the trunk [B, L * C], fp32 -> weights of the reduction [L, B, C, O]."""
        hidden = F.linear(average, self.first, self.first_bias).relu_()
        attention = F.linear(hidden, self.second, self.second_bias).sigmoid_()  # [B, L]
        return attention.t()[:, :, None, None] * self.layers[:, None]


class InferenceTHead(nn.Module):
    """`THead` without gradient: the trunk's layers are never copied into one, and read by all branches together."""

    def __init__(self, head: THead, dtype: torch.dtype) -> None:
        super().__init__()
        self.config, self.strides = head.config, head.strides
        self.scales = [scale.detach().clone() for scale in head.scales]
        self.dtype = dtype
        self.interactive = nn.ModuleList()
        for layer in head.interactive:
            assert isinstance(layer, ConvNormReLU)
            self.interactive.append(InferenceConvNormReLU(layer, dtype))
        tasks = (head.classification_decomposition, head.regression_decomposition)
        self.attentions = nn.ModuleList(_Attention(task) for task in tasks)
        self.norms = nn.ModuleList(_Norm(task.norm) for task in tasks)
        self.classifier = folded(head.classifier, None, False, dtype)
        self.regressor = folded(head.regressor, None, False, dtype)
        first, second = _joined(head.classification_alignment, head.regression_alignment)
        outputs = len(first.weight)
        self.alignment = first.weight.view(outputs, len(self.interactive), -1).permute(1, 2, 0).to(dtype).contiguous()
        assert first.bias is not None
        self.alignment_bias = first.bias.to(dtype)
        self.alignment_output = folded(second, None, False, dtype)

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
            predictor(norm(_weighted_sum(layers, attention(average).to(self.dtype), reused=convolved)))
            for attention, norm, predictor in zip(
                self.attentions, self.norms, (self.classifier, self.regressor), strict=True
            )
        )
        hidden = _weighted_sum(layers, self.alignment[:, None], self.alignment_bias).relu_()
        del layers, features  # the most memory that a network of this kind holds at once
        alignment, offsets = self.alignment_output(hidden).float().split((1, 8), dim=1)
        scores = _scores(logits, alignment)
        boxes = decoded_boxes(regression.float(), self.scales[level], priors, self.config.anchor)
        return scores, aligned_boxes(boxes, offsets) * self.strides[level]


class InferenceATSSHead(nn.Module):
    """`ATSSHead` without gradient."""

    def __init__(self, head: ATSSHead, dtype: torch.dtype) -> None:
        super().__init__()
        self.config, self.strides = head.config, head.strides
        self.scales = [scale.detach().clone() for scale in head.scales]
        self.classification_tower = _tower(head.classification_tower, dtype)
        self.regression_tower = _tower(head.regression_tower, dtype)
        self.classifier = folded(head.classifier, None, False, dtype)
        self.has_quality = head.centerness is not None
        self.regressor = folded(_stacked(head.regressor, head.centerness), None, False, dtype)

    def forward(self, maps: Sequence[Tensor]) -> DensePredictions:
        """One map [B, inputs, h, w] a level -> N = sum of h * w predictions; all fp32, scores and quality logits."""
        scores, deltas, quality = [], [], []
        for features, scale in zip(maps, self.scales, strict=True):
            scores.append(_rows(self.classifier(self.classification_tower(features))))  # [B, hw, C]
            regression = _rows(self.regressor(self.regression_tower(features)))  # [B, hw, 4 or 5]
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
    layers = []
    for layer in tower:
        assert isinstance(layer, ConvNormReLU)
        layers.append(InferenceConvNormReLU(layer, dtype))
    return nn.Sequential(*layers)


def _weighted_sum(
    layers: Sequence[Tensor], weights: Tensor, bias: Tensor | None = None, reused: Tensor | None = None
) -> Tensor:
    """The 1x1 convolution of all layers [B, C, h, w] together, weights [L, B or 1, C, O] -> [B, O, h, w].

    `reused`, of the output's shape, is overwritten and given back; it goes with no bias.
    """
    batch, _, height, width = layers[0].shape
    out: Tensor | None = None
    for layer, weight in zip(layers, weights, strict=True):
        rows = _cells(layer)
        weight = weight.expand(batch, -1, -1)
        if out is not None:
            out.baddbmm_(rows, weight)
        elif bias is None:
            out = torch.bmm(rows, weight, out=None if reused is None else _cells(reused))
        else:
            out = torch.baddbmm(bias, rows, weight)
    assert out is not None
    return out.view(batch, height, width, -1).permute(0, 3, 1, 2)


def _cells(features: Tensor) -> Tensor:
    """[B, C, h, w] in channels-last memory -> [B, h * w, C], a view."""
    return features.permute(0, 2, 3, 1).flatten(1, 2)


def _scores(logits: Tensor, alignment: Tensor) -> Tensor:
    """`aligned_scores`, which needs no gradient here: [B, C, h, w] logits, [B, 1, h, w] M -> [B, h * w, C] fp32."""
    # Each root for itself: a product of two small probabilities may be less than fp32 holds.
    return _rows(logits).sigmoid_().sqrt_().mul_(_rows(alignment).sigmoid_().sqrt_())


def _rows(maps: Tensor) -> Tensor:
    """[B, C, h, w] in channels-last memory -> [B, h * w, C] fp32, a copy."""
    return _cells(maps).to(torch.float32, copy=True)


def _joined(one: nn.Sequential, other: nn.Sequential) -> tuple[nn.Conv2d, nn.Conv2d]:
    """Two branches of convolution, ReLU, convolution on the same input as one of twice the width."""
    first = _stacked(_conv(one, 0), _conv(other, 0))
    a, b = _conv(one, 2), _conv(other, 2)
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


def _stacked(one: nn.Conv2d, other: nn.Conv2d | None) -> nn.Conv2d:
    """Two convolutions on the same input as one."""
    if other is None:
        return one
    assert one.bias is not None
    assert other.bias is not None
    outputs = one.out_channels + other.out_channels
    kernel = one.kernel_size[0]
    conv = nn.Conv2d(one.in_channels, outputs, kernel, padding=kernel // 2)
    conv.requires_grad_(False).to(one.weight.device)
    assert conv.bias is not None
    conv.weight.copy_(torch.cat([one.weight, other.weight]))
    conv.bias.copy_(torch.cat([one.bias, other.bias]))
    return conv


def _conv(branch: nn.Sequential, position: int) -> nn.Conv2d:
    layer = branch[position]
    assert isinstance(layer, nn.Conv2d)
    return layer
