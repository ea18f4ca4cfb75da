"""Published names of a parallel head's towers, and their shape as their tensors show it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from torch import Tensor

from tood.models.common.published import Hints, count, shape

TOWER_NAMES: tuple[tuple[str, str], ...] = (
    ("bbox_head.cls_convs.#.conv.", "head.classification_tower.#.conv."),
    ("bbox_head.cls_convs.#.gn.", "head.classification_tower.#.norm."),
    ("bbox_head.reg_convs.#.conv.", "head.regression_tower.#.conv."),
    ("bbox_head.reg_convs.#.gn.", "head.regression_tower.#.norm."),
    ("bbox_head.scales.#.scale", "head.scales.#"),
)
# Of a head with towers alone: what stands on them tells the family.
A_TOWER = "head.classification_tower.0.conv.weight"
CLASSIFIER = ("head.classifier.weight", "head.classifier.bias")


class Towers(NamedTuple):
    """What `ParallelHeadConfig` asks of a family."""

    width: int
    tower_layers: int
    norm_groups: int
    anchor_scale: float


def infer_towers(state: Mapping[str, Tensor], hints: Hints, anchor_scale: float) -> Towers:
    """The towers that a detector's tensors (under our names) show.

    The groups of their GroupNorms show in no tensor: `hints` say, or else the published 32 (in a head too narrow for
    these, groups of at least 4 channels) are taken; and so of the anchors' scale.

    Raises:
        ToodError: if a tensor is missing that tells the shape.
    """
    width = shape(state, A_TOWER, 4)[0]
    layers = count(state, "head.classification_tower.#.")
    return Towers(width, layers, hints.norm_groups(width), hints.anchor_scale(anchor_scale))
