"""Names of GFL's tensors in published checkpoints (MMDetection's) and here, and the network that they show."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import torch
from torch import Tensor

from tood.errors import ToodError
from tood.models.backbones.weights import RESNET_NAMES, infer_backbone
from tood.models.common.parallel_weights import A_TOWER, CLASSIFIER, TOWER_NAMES, infer_towers
from tood.models.common.published import Hints, Names, rename, shape
from tood.models.gfl.config import GFLConfig
from tood.models.gfl.head import GFLHeadConfig
from tood.models.necks.weights import count_maps, fpn_names, infer_neck

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
FRAMEWORK_TYPES = ("GFLHead", "GFL")

_HEAD: tuple[tuple[str, str], ...] = (
    *TOWER_NAMES,
    ("bbox_head.gfl_cls.", "head.classifier."),
    ("bbox_head.gfl_reg.", "head.distribution."),
)
# The bins that a distribution is over: no weights, but every published file lists them.
_BINS = "bbox_head.integral.project"


def matches(names: Collection[str]) -> bool:
    """Whether these are a GFL's names, published or ours."""
    return "bbox_head.gfl_cls.weight" in names or (A_TOWER in names and "head.distribution.weight" in names)


def from_published(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A published state dict under this package's names; unknown names, and ours, stay as they are.

    Raises:
        ToodError: if two names mean the same tensor, or the distributions are not over 0, 1, 2, ...
    """
    bins = state.get(_BINS)
    if bins is not None and not bins.is_meta and not torch.equal(bins.float(), torch.arange(float(bins.numel()))):
        raise ToodError(f"{_BINS} in it is not 0, 1, 2, ...: its distributions are over other places than tood's")
    weights = {name: tensor for name, tensor in state.items() if name != _BINS}
    return rename(weights, _names(count_maps(weights)))


def to_published(state: Mapping[str, Tensor], layout: str = "mmdet") -> dict[str, Tensor]:
    """This package's state dict under the published names."""
    names = _names(count_maps(state))
    published = {names.published(name): tensor for name, tensor in state.items()}
    if "head.distribution.weight" in state:
        weight = state["head.distribution.weight"]
        published[_BINS] = torch.arange(weight.shape[0] // 4, dtype=weight.dtype, device=weight.device)
    return published


def infer_config(state: Mapping[str, Tensor], hints: Hints = Hints()) -> GFLConfig:  # noqa: B008 - frozen
    """The network of a state dict under this package's names.

    The groups of its GroupNorms show in no tensor: `hints` say, or else the published 32 (in a head too narrow for
    these, groups of at least 4 channels) are taken.

    Raises:
        ToodError: if a tensor is missing that tells the shape.
    """
    neck, map_channels = infer_neck(state)
    towers = infer_towers(state, hints, GFLHeadConfig.anchor_scale)
    return GFLConfig(
        classes=shape(state, "head.classifier.weight", 4)[0],
        backbone=infer_backbone(state, map_channels),
        neck=neck,
        head=GFLHeadConfig(**towers._asdict(), bins=shape(state, "head.distribution.weight", 4)[0] // 4),
    )


def _names(maps: int) -> Names:
    return Names((*RESNET_NAMES, *fpn_names(maps), *_HEAD))
