"""Names of ATSS's tensors in published checkpoints (MMDetection's) and here, and the network that they show."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from torch import Tensor

from tood.models.atss.config import ATSSConfig
from tood.models.atss.head import ATSSHeadConfig
from tood.models.backbones.weights import RESNET_NAMES, infer_backbone
from tood.models.common.published import Hints, Names, count, rename, shape
from tood.models.necks.weights import count_maps, fpn_names, infer_fpn

LAYOUTS = ("mmdet",)
FRAMEWORK_TYPES = ("ATSSHead", "ATSS")
CLASSIFIER = ("head.classifier.weight", "head.classifier.bias")

_HEAD: tuple[tuple[str, str], ...] = (
    ("bbox_head.cls_convs.#.conv.", "head.classification_tower.#.conv."),
    ("bbox_head.cls_convs.#.gn.", "head.classification_tower.#.norm."),
    ("bbox_head.reg_convs.#.conv.", "head.regression_tower.#.conv."),
    ("bbox_head.reg_convs.#.gn.", "head.regression_tower.#.norm."),
    ("bbox_head.atss_cls.", "head.classifier."),
    ("bbox_head.atss_reg.", "head.regressor."),
    ("bbox_head.atss_centerness.", "head.centerness."),
    ("bbox_head.scales.#.scale", "head.scales.#"),
)


def matches(names: Collection[str]) -> bool:
    """Whether these are an ATSS's names, published or ours."""
    return "bbox_head.atss_cls.weight" in names or "head.classification_tower.0.conv.weight" in names


def from_published(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A published state dict under this package's names; unknown names, and ours, stay as they are."""
    return rename(state, _names(count_maps(state)))


def to_published(state: Mapping[str, Tensor], layout: str = "mmdet") -> dict[str, Tensor]:
    """This package's state dict under the published names."""
    names = _names(count_maps(state))
    return {names.published(name): tensor for name, tensor in state.items()}


def infer_config(state: Mapping[str, Tensor], hints: Hints = Hints()) -> ATSSConfig:  # noqa: B008 - frozen
    """The network of a state dict under this package's names.

    The groups of its GroupNorms show in no tensor: `hints` say, or else the published 32 (in a head too narrow for
    these, groups of at least 4 channels) are taken.

    Raises:
        ToodError: if a tensor is missing that tells the shape.
    """
    neck, map_channels = infer_fpn(state)
    width = shape(state, "head.classification_tower.0.conv.weight", 4)[0]
    head = ATSSHeadConfig(
        width=width,
        tower_layers=count(state, "head.classification_tower.#."),
        norm_groups=hints.norm_groups(width),
        anchor_scale=hints.anchor_scale(ATSSHeadConfig.anchor_scale),
        centerness="head.centerness.weight" in state,
    )
    return ATSSConfig(
        classes=shape(state, "head.classifier.weight", 4)[0],
        backbone=infer_backbone(state, map_channels),
        neck=neck,
        head=head,
    )


def _names(maps: int) -> Names:
    return Names((*RESNET_NAMES, *fpn_names(maps), *_HEAD))
