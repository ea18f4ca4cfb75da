"""Names of PAA's tensors in published checkpoints (MMDetection's) and here, and the network that they show.

There they are called as an ATSS's, the IoU branch centerness: such a file is known by what it says of its head.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

from torch import Tensor

from tood.models.backbones.weights import RESNET_NAMES, infer_backbone
from tood.models.common.parallel_weights import A_TOWER, CLASSIFIER, TOWER_NAMES, infer_towers
from tood.models.common.published import Hints, Names, rename, shape
from tood.models.necks.weights import count_maps, fpn_names, infer_neck
from tood.models.paa.config import PAAConfig
from tood.models.paa.head import PAAHeadConfig

__all__ = [
    "CLASSIFIER",
    "FRAMEWORK_TYPES",
    "LAYOUTS",
    "from_published",
    "infer_config",
    "matches",
    "to_published",
]

LAYOUTS = ("mmdet",)
FRAMEWORK_TYPES = ("PAAHead", "PAA")

_HEAD: tuple[tuple[str, str], ...] = (
    *TOWER_NAMES,
    ("bbox_head.atss_cls.", "head.classifier."),
    ("bbox_head.atss_reg.", "head.deltas."),
    ("bbox_head.atss_centerness.", "head.iou."),
)


def matches(names: Collection[str]) -> bool:
    """Whether these are a PAA's names, ours: the published ones are an ATSS's, whose files they are taken for."""
    return A_TOWER in names and "head.deltas.weight" in names


def from_published(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A published state dict under this package's names; unknown names, and ours, stay as they are."""
    return rename(state, _names(count_maps(state)))


def to_published(state: Mapping[str, Tensor], layout: str = "mmdet") -> dict[str, Tensor]:
    """This package's state dict under the published names."""
    names = _names(count_maps(state))
    return {names.published(name): tensor for name, tensor in state.items()}


def infer_config(state: Mapping[str, Tensor], hints: Hints = Hints()) -> PAAConfig:  # noqa: B008 - frozen
    """The network of a state dict under this package's names.

    The groups of its GroupNorms show in no tensor: `hints` say, or else the published 32 (in a head too narrow for
    these, groups of at least 4 channels) are taken.

    Raises:
        ToodError: if a tensor is missing that tells the shape.
    """
    neck, map_channels = infer_neck(state)
    towers = infer_towers(state, hints, PAAHeadConfig.anchor_scale)
    return PAAConfig(
        classes=shape(state, "head.classifier.weight", 4)[0],
        backbone=infer_backbone(state, map_channels),
        neck=neck,
        head=PAAHeadConfig(**towers._asdict(), iou="head.iou.weight" in state),
    )


def _names(maps: int) -> Names:
    return Names((*RESNET_NAMES, *fpn_names(maps), *_HEAD))
