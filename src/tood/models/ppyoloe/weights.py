"""Names of PP-YOLOE's tensors in published files (PaddleDetection's) and here, and the network that they show."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from torch import Tensor

from tood.models.backbones import CSPRepResNetConfig
from tood.models.backbones.weights import csp_rep_resnet_names, infer_backbone
from tood.models.common.distribution import require_whole_bins
from tood.models.common.paddle_names import conv_norm_names
from tood.models.common.published import Hints, Names, count, rename, shape
from tood.models.necks.weights import csp_pan_names, infer_neck
from tood.models.ppyoloe.config import LEGACY_INPUT, PLUS_INPUT, PPYOLOEConfig
from tood.models.ppyoloe.head import ETHeadConfig

FRAMEWORK_TYPES = ("PPYOLOEHead", "PPYOLOE")
CLASSIFIER = ("head.classifiers.#.weight", "head.classifiers.#.bias")
# The bins' values 0, 1, 2 ...
_BINS = "yolo_head.proj_conv.weight"
# Paddle's BatchNorms do not count their batches.
_COUNTER = ".num_batches_tracked"


def matches(names: Collection[str]) -> bool:
    """Whether these are a PP-YOLOE's names, published or ours."""
    return "yolo_head.stem_cls.0.fc.weight" in names or "head.classification.0.fc.weight" in names


def layouts(names: Collection[str]) -> tuple[str, ...]:
    """Layouts in which published code reads such a network, the usual one first."""
    return ("paddle",)


def from_published(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A published state dict under this package's names; unknown names, and ours, stay as they are.

    Raises:
        ToodError: if two names mean the same tensor, or the distributions are not over 0, 1, 2, ...
    """
    if _BINS in state:
        require_whole_bins(state[_BINS], _BINS)
    return rename(state, _names(count(state, "yolo_head.stem_cls.#.")))


def to_published(state: Mapping[str, Tensor], layout: str = "paddle") -> dict[str, Tensor]:
    """This package's state dict under the published names."""
    names = _names(count(state, "head.classification.#."))
    return {names.published(name): tensor for name, tensor in state.items() if not name.endswith(_COUNTER)}


def infer_config(state: Mapping[str, Tensor], hints: Hints = Hints()) -> PPYOLOEConfig:  # noqa: B008 - frozen
    """The network of a state dict under this package's names.

    Raises:
        ToodError: if a tensor is missing that tells the shape.
    """
    neck, map_channels = infer_neck(state)
    backbone = infer_backbone(state, map_channels)
    return PPYOLOEConfig(
        classes=shape(state, "head.classifiers.0.weight", 4)[0],
        backbone=backbone,
        neck=neck,
        head=ETHeadConfig(bins=shape(state, "head.regressors.0.weight", 4)[0] // 4),
        # No tensor shows it: those whose blocks weigh their branches are PP-YOLOE+.
        input=PLUS_INPUT if isinstance(backbone, CSPRepResNetConfig) and backbone.alpha else LEGACY_INPUT,
    )


def _names(levels: int) -> Names:
    return Names((*csp_rep_resnet_names(), *csp_pan_names(), *_head_names(levels)))


def _head_names(levels: int) -> tuple[tuple[str, str], ...]:
    """The published head counts its levels from the coarsest, ours from the finest."""
    names: list[tuple[str, str]] = [(_BINS, "head.projection")]
    for level in range(levels):
        published = levels - 1 - level
        for theirs, ours in (("stem_cls", "classification"), ("stem_reg", "regression")):
            names += conv_norm_names(f"yolo_head.{theirs}.{published}.conv.", f"head.{ours}.{level}.conv.")
            names.append((f"yolo_head.{theirs}.{published}.fc.", f"head.{ours}.{level}.fc."))
        for theirs, ours in (("pred_cls", "classifiers"), ("pred_reg", "regressors")):
            names.append((f"yolo_head.{theirs}.{published}.", f"head.{ours}.{level}."))
    return tuple(names)
