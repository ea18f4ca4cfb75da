"""The task-aligned head (TOOD, section 3.1): one trunk, two tasks that look at all of it, and their alignment."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tood.boxes import decode_deltas, decode_distances
from tood.errors import SettingError
from tood.models.common.layers import PRIOR_BIAS, ConvNormReLU, init_normal
from tood.models.common.priors import DELTA_STDS, grid_priors
from tood.models.common.sizes import (
    MOST_ANCHOR_SCALE,
    MOST_CHANNELS,
    MOST_LAYERS,
    reduced,
    require_factor,
    require_whole,
)
from tood.models.common.task_decomposition import TaskDecomposition, trunks
from tood.models.tood.one_reading import SeenInTrunk, may_read_at_once, read_at_once
from tood.ops import sampled_at_offsets
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
        layer_attention, score_alignment, box_alignment: parts of the head, which the paper has all (equations 3, 4 and
            5). Without them a task weighs the trunk's layers alike, scores are those of the classifier, and boxes those
            of their own place.
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
    layer_attention: bool = True
    score_alignment: bool = True
    box_alignment: bool = True

    def __post_init__(self) -> None:
        require_whole("model.head.width", self.width, MOST_CHANNELS)
        require_whole("model.head.interactive_layers", self.interactive_layers, MOST_LAYERS)
        require_whole("model.head.norm_groups", self.norm_groups, MOST_CHANNELS)
        require_whole("model.head.attention_reduction", self.attention_reduction, MOST_CHANNELS)
        require_whole("model.head.alignment_reduction", self.alignment_reduction, MOST_CHANNELS)
        require_whole("model.head.deformable_layers", self.deformable_layers, MOST_LAYERS, least=0)
        require_whole("model.head.deform_groups", self.deform_groups, MOST_CHANNELS)
        require_factor("model.head.anchor_scale", self.anchor_scale, MOST_ANCHOR_SCALE)


class THead(nn.Module):
    """Dense predictions from the pyramid's levels; all weights but the box scales are shared by the levels."""

    def __init__(self, config: THeadConfig, classes: int, inputs: int, strides: Sequence[int]) -> None:
        super().__init__()
        self.config = config
        self.strides = tuple(strides)
        if config.deformable_layers and (inputs % config.deform_groups or config.width % config.deform_groups):
            raise SettingError(
                "model.head.deform_groups",
                f"is {config.deform_groups}: choose a divisor of model.head.width {config.width} and of the {inputs} "
                "channels of the neck",
            )
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
        attention = config.attention_reduction if config.layer_attention else None
        decomposition = (config.width, config.interactive_layers, config.norm_groups, attention)
        self.classification_decomposition = TaskDecomposition(*decomposition)
        self.regression_decomposition = TaskDecomposition(*decomposition)
        self.classifier = nn.Conv2d(config.width, classes, 3, padding=1)
        self.regressor = nn.Conv2d(config.width, 4, 3, padding=1)
        hidden = reduced("model.head.alignment_reduction", config.width, config.alignment_reduction)
        self.classification_alignment = _alignment_branch(trunk, hidden, 1) if config.score_alignment else None
        self.regression_alignment = _alignment_branch(trunk, hidden, 4 * 2) if config.box_alignment else None
        self.scales = nn.ParameterList(nn.Parameter(torch.tensor(1.0)) for _ in self.strides)
        self._initialise()

    def forward(self, maps: Sequence[Tensor]) -> DensePredictions:
        """One map [B, inputs, h, w] a level -> N = sum of h * w predictions; scores are probabilities."""
        priors = grid_priors(maps, self.strides, self.config.anchor_scale)
        scores, boxes = [], []
        levels = zip(self.seen(self.trunks(maps)), self.scales, level_priors(priors), self.strides, strict=True)
        for seen, scale, own, stride in levels:
            logits = self.classifier(seen.classification)  # P
            scores.append(aligned_scores(logits, seen.alignment).flatten(2))
            # Coordinates need all of fp32's bits; autocast would lower none of the operations from here on.
            distances = self.regressor(seen.regression).float()
            level_boxes = decoded_boxes(distances, scale, own, self.config.anchor)  # B
            boxes.append((aligned_boxes(level_boxes, seen.offsets) * stride).flatten(2))
        # [B, C, N] -> [B, N, C]
        return DensePredictions(torch.cat(scores, 2).transpose(1, 2), torch.cat(boxes, 2).transpose(1, 2), priors)

    @property
    def alignments(self) -> tuple[nn.Sequential | None, nn.Sequential | None]:
        """What aligns the scores, and what aligns the boxes."""
        return self.classification_alignment, self.regression_alignment

    def trunks(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """The outputs of all interactive layers (equation 1): [B, inputs, h, w] -> [B, L * C, h, w], of each level."""
        return trunks(self.interactive, maps)

    def seen(self, trunks: Sequence[Tensor]) -> Iterator[SeenInTrunk]:
        """What both tasks and both alignments make of each level's trunk."""
        tasks = (self.classification_decomposition, self.regression_decomposition)
        alignments = [branch for branch in self.alignments if branch is not None]
        at_once = may_read_at_once(tasks, alignments, trunks)
        plain = ([module(trunk) for module in (*tasks, *alignments)] for trunk in trunks)
        for classification, regression, *aligned in read_at_once(tasks, alignments, trunks) if at_once else plain:
            found = iter(aligned)
            yield SeenInTrunk(
                classification, regression, *(None if branch is None else next(found) for branch in self.alignments)
            )

    def fuse(self, dtype: torch.dtype) -> nn.Module:
        """The same as fewer operations, to predict with; raises `CannotFuse` where a part is of another kind."""
        from tood.models.tood.inference import InferenceTHead

        return InferenceTHead(self, dtype)

    def _initialise(self) -> None:
        init_normal(self, std=0.01)
        for decomposition in (self.classification_decomposition, self.regression_decomposition):
            if decomposition.attention is not None:
                init_normal(decomposition.attention, std=0.001)
        if self.regression_alignment is not None:
            init_normal(self.regression_alignment, std=0.001)
        predictors: list[nn.Module] = [self.classifier]
        if self.classification_alignment is not None:
            predictors.append(self.classification_alignment[2])
        for predictor in predictors:
            assert isinstance(predictor, nn.Conv2d)
            assert predictor.bias is not None
            nn.init.constant_(predictor.bias, PRIOR_BIAS)


def aligned_scores(logits: Tensor, alignment: Tensor | None) -> Tensor:
    """sqrt(sigmoid(logits) * sigmoid(M)) (equation 4): [B, C, h, w] logits, [B, 1, h, w] M -> [B, C, h, w] fp32.

    As the exponential of the mean log-sigmoid, so that the square root's gradient cannot blow up near 0. Without M
    sigmoid(logits).
    """
    if alignment is None:
        return logits.float().sigmoid()
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


def aligned_boxes(boxes: Tensor, offsets: Tensor | None) -> Tensor:
    """Every edge of a box read from a neighbouring place that knows it better (equation 5).

    Args:
        boxes: [B, 4, h, w] x1 y1 x2 y2, in strides.
        offsets: [B, 8, h, w] a (dy, dx) pair in cells for each of the four edges; None leaves the boxes as they are.

    Returns:
        [B, 4, h, w]: each edge sampled bilinearly at (y + dy, x + dx), zeros outside the map. A box that the sampling
        turned inside out is left as it was: its GIoU would be negative.
    """
    if offsets is None:
        return boxes
    sampled = sampled_at_offsets(boxes, offsets.float())
    inverted = (sampled[:, :2] > sampled[:, 2:]).any(dim=1, keepdim=True)
    return torch.where(inverted, boxes, sampled)


def _alignment_branch(inputs: int, hidden: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(inputs, hidden, 1), nn.ReLU(), nn.Conv2d(hidden, outputs, 3, padding=1))


def level_priors(priors: Priors) -> list[Priors]:
    """Each level's priors."""
    sizes = priors.level_sizes
    parts = (torch.split(values, sizes) for values in (priors.centres, priors.sizes, priors.strides))
    levels = zip(*parts, priors.shapes, strict=True)
    return [Priors(centres, sides, strides, (shape,)) for centres, sides, strides, shape in levels]
