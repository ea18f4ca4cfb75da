"""Tensor names of detectors with a parallel head in published checkpoints (MMDetection's) and here, and what they show.

ATSS, GFL and PAA have backbone, pyramid and towers alike; each adds the names of what stands on its towers.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import Generic, TypeAlias, TypeVar

from torch import Tensor

from tood.models.backbones import AnyBackboneConfig
from tood.models.backbones.weights import RESNET_NAMES, infer_backbone
from tood.models.common.parallel_head import ParallelHeadConfig
from tood.models.common.published import Hints, Names, count, rename, shape
from tood.models.necks import AnyNeckConfig
from tood.models.necks.weights import count_maps, fpn_names, infer_neck

Branches: TypeAlias = tuple[tuple[str, str], ...]
"""Pairs, for `Names`, of what stands on a family's towers."""

HeadT = TypeVar("HeadT", bound=ParallelHeadConfig)

# Of a head with towers alone: what stands on them tells the family.
A_TOWER = "head.classification_tower.0.conv.weight"
CLASSIFIER = ("head.classifier.weight", "head.classifier.bias")

_TOWERS: tuple[tuple[str, str], ...] = (
    ("bbox_head.cls_convs.#.conv.", "head.classification_tower.#.conv."),
    ("bbox_head.cls_convs.#.gn.", "head.classification_tower.#.norm."),
    ("bbox_head.reg_convs.#.conv.", "head.regression_tower.#.conv."),
    ("bbox_head.reg_convs.#.gn.", "head.regression_tower.#.norm."),
    ("bbox_head.scales.#.scale", "head.scales.#"),
)


@dataclass(frozen=True)
class Shown(Generic[HeadT]):
    """What a detector's tensors show of its network.

    Attributes:
        classes: number of classes.
        backbone, neck, head: their shapes.
    """

    classes: int
    backbone: AnyBackboneConfig
    neck: AnyNeckConfig
    head: HeadT


def layouts(names: Collection[str]) -> tuple[str, ...]:
    """Layouts in which published code reads such a network, the usual one first."""
    return ("mmdet",)


def to_ours(state: Mapping[str, Tensor], branches: Branches) -> dict[str, Tensor]:
    """A published state dict under this package's names; unknown names, and ours, stay as they are.

    Raises:
        ToodError: if two names mean the same tensor.
    """
    return rename(state, _names(state, branches))


def to_theirs(state: Mapping[str, Tensor], branches: Branches) -> dict[str, Tensor]:
    """This package's state dict under the published names."""
    names = _names(state, branches)
    return {names.published(name): tensor for name, tensor in state.items()}


def infer(state: Mapping[str, Tensor], hints: Hints, head: HeadT) -> Shown[HeadT]:
    """The network of a state dict under this package's names, with a head that knows what stands on its towers.

    The groups of the GroupNorms show in no tensor: `hints` say, or else the published 32 (in a head too narrow for
    these, groups of at least 4 channels) are taken; and so of the anchors' scale, else that of `head`.

    Raises:
        ToodError: if a tensor is missing that tells the shape.
    """
    neck, map_channels = infer_neck(state)
    width = shape(state, A_TOWER, 4)[0]
    return Shown(
        classes=shape(state, "head.classifier.weight", 4)[0],
        backbone=infer_backbone(state, map_channels),
        neck=neck,
        head=replace(
            head,
            width=width,
            tower_layers=count(state, "head.classification_tower.#."),
            norm_groups=hints.norm_groups(width),
            anchor_scale=hints.anchor_scale(head.anchor_scale),
        ),
    )


def _names(state: Mapping[str, Tensor], branches: Branches) -> Names:
    return Names((*RESNET_NAMES, *fpn_names(count_maps(state)), *_TOWERS, *branches))
