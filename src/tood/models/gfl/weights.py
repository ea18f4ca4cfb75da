"""Names of GFL's tensors in published checkpoints (MMDetection's) and here, and the network that they show."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import torch
from torch import Tensor

from tood.models.common.distribution import require_whole_bins
from tood.models.common.published import Hints, shape
from tood.models.gfl.config import GFLConfig
from tood.models.gfl.head import GFLHeadConfig
from tood.models.parallel_weights import A_TOWER, CLASSIFIER, infer, layouts, to_ours, to_theirs

__all__ = [
    "CLASSIFIER",
    "FRAMEWORK_TYPES",
    "from_published",
    "infer_config",
    "layouts",
    "matches",
    "to_published",
]

FRAMEWORK_TYPES = ("GFLHead", "GFL")

_BRANCHES = (
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
    if _BINS in state:
        require_whole_bins(state[_BINS], _BINS)
    return to_ours({name: tensor for name, tensor in state.items() if name != _BINS}, _BRANCHES)


def to_published(state: Mapping[str, Tensor], layout: str = "mmdet") -> dict[str, Tensor]:
    """This package's state dict under the published names."""
    published = to_theirs(state, _BRANCHES)
    if "head.distribution.weight" in state:
        weight = state["head.distribution.weight"]
        published[_BINS] = torch.arange(weight.shape[0] // 4, dtype=weight.dtype, device=weight.device)
    return published


def infer_config(state: Mapping[str, Tensor], hints: Hints = Hints()) -> GFLConfig:  # noqa: B008 - frozen
    """The network of a state dict under this package's names, as far as `infer` of the parallel head's knows it.

    Raises:
        ToodError: if a tensor is missing that tells the shape.
    """
    shown = infer(state, hints, GFLHeadConfig(bins=shape(state, "head.distribution.weight", 4)[0] // 4))
    return GFLConfig(classes=shown.classes, backbone=shown.backbone, neck=shown.neck, head=shown.head)
