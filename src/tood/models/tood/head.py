"""The task-aligned head (TOOD, section 3.1): one trunk, two tasks that look at all of it, and their alignment."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tood.boxes import decode_deltas, decode_distances
from tood.models.common.layers import PRIOR_BIAS, ConvNormReLU, init_normal
from tood.models.common.norm_relu import norm_relu
from tood.models.common.priors import DELTA_STDS, grid_priors
from tood.models.common.scaled_product import scaled_product, with_mean
from tood.structures import DensePredictions, Priors


@dataclass(frozen=True)
class THeadConfig:
    """Shape of the head; the defaults are the paper's.

    Attributes:
        width: channels of every interactive layer.
        interactive_layers: 3x3 convolutions of the common trunk.
        norm_groups: groups of every GroupNorm.
        attention_reduction: the layer attention has `width` divided by this hidden channels (32).
        alignment_reduction: both alignment branches have `width` divided by this hidden channels (64).
        deformable_layers: so many of the first interactive layers are deformable (DCNv2).
        deform_groups: their deformable groups.
        anchor: "free" predicts distances from a point, "based" deltas of a square anchor.
        anchor_scale: side of the anchors, in strides.
    """

    width: int = 256
    interactive_layers: int = 6
    norm_groups: int = 32
    attention_reduction: int = 8
    alignment_reduction: int = 4
    deformable_layers: int = 0
    deform_groups: int = 4
    anchor: Literal["free", "based"] = "free"
    anchor_scale: float = 8.0


class TaskDecomposition(nn.Module):
    """What one task takes from the trunk: its layers weighted by attention, then reduced (equations 1 and 2)."""

    def __init__(self, config: THeadConfig) -> None:
        super().__init__()
        self.layers = config.interactive_layers
        channels = config.width * config.interactive_layers
        hidden = config.width // config.attention_reduction
        self.attention = nn.Sequential(
            nn.Conv2d(channels, hidden, 1), nn.ReLU(inplace=True), nn.Conv2d(hidden, self.layers, 1), nn.Sigmoid()
        )
        self.reduction = nn.Conv2d(channels, config.width, 1, bias=False)
        self.norm = nn.GroupNorm(config.norm_groups, config.width)


class THead(nn.Module):
    """Dense predictions from the pyramid's levels; all weights but the box scales are shared by the levels."""

    def __init__(self, config: THeadConfig, classes: int, inputs: int, strides: Sequence[int]) -> None:
        super().__init__()
        self.config = config
        self.strides = tuple(strides)
        trunk = config.width * config.interactive_layers
        self.interactive = nn.ModuleList(
            ConvNormReLU(
                inputs if layer == 0 else config.width,
                config.width,
                config.norm_groups,
                config.deform_groups if layer < config.deformable_layers else 0,
            )
            for layer in range(config.interactive_layers)
        )
        self.classification_decomposition = TaskDecomposition(config)
        self.regression_decomposition = TaskDecomposition(config)
        self.classifier = nn.Conv2d(config.width, classes, 3, padding=1)
        self.regressor = nn.Conv2d(config.width, 4, 3, padding=1)
        hidden = config.width // config.alignment_reduction
        self.classification_alignment = _alignment_branch(trunk, hidden, 1)
        self.regression_alignment = _alignment_branch(trunk, hidden, 4 * 2)
        self.scales = nn.ParameterList(nn.Parameter(torch.tensor(1.0)) for _ in self.strides)
        self._initialise()

    def forward(self, maps: Sequence[Tensor]) -> DensePredictions:
        """One map [B, inputs, h, w] a level -> N = sum of h * w predictions; scores are probabilities."""
        priors = grid_priors(maps, self.strides, self.config.anchor_scale)
        layers = []
        for interactive in self.interactive:
            assert isinstance(interactive, ConvNormReLU)
            maps = interactive.on_levels(maps)
            layers.append(maps)
        trunks = [torch.cat(of_level, dim=1) for of_level in zip(*layers, strict=True)]  # [B, L * C, h, w]
        scores, boxes = [], []
        for level, (features, own) in enumerate(zip(self._reduced(trunks), level_priors(priors), strict=True)):
            level_scores, level_boxes = self._level(features, level, own)
            scores.append(level_scores.flatten(2))
            boxes.append(level_boxes.flatten(2))
        # [B, C, N] -> [B, N, C]
        return DensePredictions(torch.cat(scores, 2).transpose(1, 2), torch.cat(boxes, 2).transpose(1, 2), priors)

    def _level(self, reduced: Sequence[Tensor], level: int, priors: Priors) -> tuple[Tensor, Tensor]:
        """What `_reduced` gives for a level -> scores [B, C, h, w] and boxes [B, 4, h, w] in input pixels."""
        classification, regression, for_scores, for_boxes = reduced
        logits = self.classifier(norm_relu(self.classification_decomposition.norm, classification))
        scores = aligned_scores(logits, _alignment(self.classification_alignment, for_scores))
        distances = self.regressor(norm_relu(self.regression_decomposition.norm, regression))
        offsets = _alignment(self.regression_alignment, for_boxes)
        # Coordinates need all of fp32's bits; none of the operations from here on is one that autocast would lower.
        boxes = decoded_boxes(distances.float(), self.scales[level], priors, self.config.anchor)
        return scores, aligned_boxes(boxes, offsets.float()) * self.strides[level]

    def _reductions(self) -> Tensor:
        """The weights of all four 1x1 convolutions on the trunk, one under the other: [O, L * C]."""
        decompositions = (self.classification_decomposition, self.regression_decomposition)
        convolutions = [decomposition.reduction for decomposition in decompositions]
        convolutions += [_first(branch) for branch in (self.classification_alignment, self.regression_alignment)]
        return torch.cat([convolution.weight for convolution in convolutions]).flatten(1)

    def _reduced(self, trunks: Sequence[Tensor]) -> list[list[Tensor]]:
        """What both tasks and both alignments take from each level's trunk, in one product that reads it once.

        Layer attention is one weight a layer, folded into the tasks' weights, or the rows of a small map; the
        alignments look at all layers alike.

        Args:
            trunks: [B, L * C, h, w] of each level.

        Returns:
            Of each level [B, C, h, w] of classification and regression, [B, hidden, h, w] of their alignments.
        """
        weight = self._reductions()
        hidden = _first(self.classification_alignment).out_channels
        sizes = [self.config.width, self.config.width, hidden + hidden]
        rows = [with_mean(trunk.permute(0, 2, 3, 1).flatten(1, 2)) for trunk in trunks]  # [B, hw, L * C], [B, L * C]
        scales = self._attention([average for _, average in rows])
        levels = []
        for trunk, (cells, _), scale in zip(trunks, rows, scales, strict=True):
            batch, _, height, width = trunk.shape
            reduced = scaled_product(cells, weight, scale, sizes).view(batch, height, width, -1)
            parts = torch.split(reduced, [self.config.width, self.config.width, hidden, hidden], dim=3)
            levels.append([part.permute(0, 3, 1, 2).contiguous(memory_format=torch.channels_last) for part in parts])
        return levels

    def _attention(self, averages: Sequence[Tensor]) -> list[Tensor]:
        """Each level's weights of its layers: [B, L * C] -> [B, 3, L] of classification, regression and alignments."""
        together = torch.cat(list(averages))[..., None, None]
        decompositions = (self.classification_decomposition, self.regression_decomposition)
        attention = [task.attention(together).flatten(1).float() for task in decompositions]
        scales = torch.stack([*attention, torch.ones_like(attention[0])], dim=1)
        return list(scales.view(len(averages), -1, *scales.shape[1:]).unbind())

    def _initialise(self) -> None:
        init_normal(self, std=0.01)
        for decomposition in (self.classification_decomposition, self.regression_decomposition):
            init_normal(decomposition.attention, std=0.001)
        init_normal(self.regression_alignment, std=0.001)
        for predictor in (self.classifier, self.classification_alignment[2]):
            assert isinstance(predictor, nn.Conv2d)
            assert predictor.bias is not None
            nn.init.constant_(predictor.bias, PRIOR_BIAS)


def aligned_scores(logits: Tensor, alignment: Tensor) -> Tensor:
    """sqrt(sigmoid(logits) * sigmoid(M)) (equation 4): [B, C, h, w] logits, [B, 1, h, w] M -> [B, C, h, w] fp32.

    As the exponential of the mean log-sigmoid, so that the square root's gradient cannot blow up near 0.
    """
    return ((F.logsigmoid(logits.float()) + F.logsigmoid(alignment.float())) / 2).exp()


def decoded_boxes(regression: Tensor, scale: Tensor, priors: Priors, anchor: Literal["free", "based"]) -> Tensor:
    """A level's [B, 4, h, w] regression, scale and priors -> boxes x1 y1 x2 y2 in strides."""
    batch, _, height, width = regression.shape
    flat = regression.permute(0, 2, 3, 1).reshape(batch, -1, 4)  # [B, hw, 4]
    strides = priors.strides[:, None]
    if anchor == "free":
        boxes = decode_distances(priors.centres / strides, scale * flat.exp())
    else:
        boxes = decode_deltas(priors.boxes / strides, scale * flat, DELTA_STDS)
    return boxes.view(batch, height, width, 4).permute(0, 3, 1, 2)


def aligned_boxes(boxes: Tensor, offsets: Tensor) -> Tensor:
    """Every edge of a box read from a neighbouring place that knows it better (equation 5).

    Args:
        boxes: [B, 4, h, w] x1 y1 x2 y2, in strides.
        offsets: [B, 8, h, w] a (dy, dx) pair in cells for each of the four edges.

    Returns:
        [B, 4, h, w]: each edge sampled bilinearly at (y + dy, x + dx), zeros outside the map. A box that the sampling
        turned inside out is left as it was: its GIoU would be negative.
    """
    batch, _, height, width = boxes.shape
    rows = torch.arange(height, device=boxes.device, dtype=boxes.dtype)[:, None]
    columns = torch.arange(width, device=boxes.device, dtype=boxes.dtype)
    dy, dx = offsets.reshape(batch * 4, 2, height, width).unbind(1)  # [4B, h, w] each
    # grid_sample's coordinates: -1 and 1 are the map's outer edges, cells lie at (2 i + 1) / size - 1.
    grid = torch.stack([(2 * (columns + dx) + 1) / width - 1, (2 * (rows + dy) + 1) / height - 1], dim=-1)
    edges = boxes.reshape(batch * 4, 1, height, width)
    sampled = F.grid_sample(edges, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
    sampled = sampled.view(batch, 4, height, width)
    inverted = (sampled[:, :2] > sampled[:, 2:]).any(dim=1, keepdim=True)
    return torch.where(inverted, boxes, sampled)


def _alignment_branch(inputs: int, hidden: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(inputs, hidden, 1), nn.ReLU(inplace=True), nn.Conv2d(hidden, outputs, 3, padding=1))


def _alignment(branch: nn.Sequential, reduced: Tensor) -> Tensor:
    """The branch from behind its first convolution's product on: [B, hidden, h, w] -> [B, outputs, h, w]."""
    bias = _first(branch).bias
    assert bias is not None
    out: Tensor = branch[1:](reduced + bias[:, None, None].to(reduced.dtype))
    return out


def _first(branch: nn.Sequential) -> nn.Conv2d:
    conv = branch[0]
    assert isinstance(conv, nn.Conv2d)
    return conv


def level_priors(priors: Priors) -> list[Priors]:
    """Each level's priors."""
    sizes = priors.level_sizes
    parts = (torch.split(values, sizes) for values in (priors.centres, priors.sizes, priors.strides))
    levels = zip(*parts, priors.shapes, strict=True)
    return [Priors(centres, sides, strides, (shape,)) for centres, sides, strides, shape in levels]
