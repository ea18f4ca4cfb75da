"""Names of PAA's tensors in published checkpoints (MMDetection's) and here, and the network that they show.

There they are called as an ATSS's, the IoU branch centerness: such a file is known by what it says of its head.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

from torch import Tensor

from tood.models.common.published import Hints
from tood.models.paa.config import PAAConfig
from tood.models.paa.head import PAAHeadConfig
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

FRAMEWORK_TYPES = ("PAAHead", "PAA")

_BRANCHES = (
    ("bbox_head.atss_cls.", "head.classifier."),
    ("bbox_head.atss_reg.", "head.deltas."),
    ("bbox_head.atss_centerness.", "head.iou."),
)


def matches(names: Collection[str]) -> bool:
    """Whether these are a PAA's names, ours: the published ones are an ATSS's, whose files they are taken for."""
    return A_TOWER in names and "head.deltas.weight" in names


def from_published(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A published state dict under this package's names; unknown names, and ours, stay as they are."""
    return to_ours(state, _BRANCHES)


def to_published(state: Mapping[str, Tensor], layout: str = "mmdet") -> dict[str, Tensor]:
    """This package's state dict under the published names."""
    return to_theirs(state, _BRANCHES)


def infer_config(state: Mapping[str, Tensor], hints: Hints = Hints()) -> PAAConfig:  # noqa: B008 - frozen
    """The network of a state dict under this package's names, as far as `infer` of the parallel head's knows it.

    Raises:
        ToodError: if a tensor is missing that tells the shape.
    """
    shown = infer(state, hints, PAAHeadConfig(iou="head.iou.weight" in state))
    return PAAConfig(classes=shown.classes, backbone=shown.backbone, neck=shown.neck, head=shown.head)
