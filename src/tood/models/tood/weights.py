"""Names of TOOD's tensors in published checkpoints and here, and the network that they show.

Two layouts are published: the original repository's (fcjian/TOOD) and that of its port in MMDetection (2.x and 3.x),
which differ in six branches of the head.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Literal

from torch import Tensor

from tood.models.backbones.weights import RESNET_NAMES, infer_backbone
from tood.models.common.published import Hints, Names, count, rename, shape
from tood.models.necks.weights import count_maps, fpn_names, infer_neck
from tood.models.tood.config import TOODConfig
from tood.models.tood.head import THeadConfig

FRAMEWORK_TYPES = ("TOODHead", "TOOD")
CLASSIFIER = ("head.classifier.weight", "head.classifier.bias")

# First tensors of what a head may lack.
_ATTENTION = "head.classification_decomposition.attention.0.weight"
_SCORE_ALIGNMENT, _BOX_ALIGNMENT = "head.classification_alignment.0.weight", "head.regression_alignment.0.weight"

_HEAD: tuple[tuple[str, str], ...] = (
    ("bbox_head.inter_convs.#.conv.conv_offset.", "head.interactive.#.conv.offset."),
    ("bbox_head.inter_convs.#.conv.", "head.interactive.#.conv."),
    ("bbox_head.inter_convs.#.gn.", "head.interactive.#.norm."),
    ("bbox_head.cls_decomp.reduction_conv.conv.", "head.classification_decomposition.reduction."),
    ("bbox_head.cls_decomp.reduction_conv.gn.", "head.classification_decomposition.norm."),
    ("bbox_head.reg_decomp.reduction_conv.conv.", "head.regression_decomposition.reduction."),
    ("bbox_head.reg_decomp.reduction_conv.gn.", "head.regression_decomposition.norm."),
    ("bbox_head.tood_cls.", "head.classifier."),
    ("bbox_head.tood_reg.", "head.regressor."),
    ("bbox_head.scales.#.scale", "head.scales.#"),
)
_PORT: tuple[tuple[str, str], ...] = (
    ("bbox_head.cls_decomp.layer_attention.", "head.classification_decomposition.attention."),
    ("bbox_head.reg_decomp.layer_attention.", "head.regression_decomposition.attention."),
    ("bbox_head.cls_prob_module.", "head.classification_alignment."),
    ("bbox_head.reg_offset_module.", "head.regression_alignment."),
)
_ORIGINAL: tuple[tuple[str, str], ...] = (
    ("bbox_head.cls_decomp.la_conv1.", "head.classification_decomposition.attention.0."),
    ("bbox_head.cls_decomp.la_conv2.", "head.classification_decomposition.attention.2."),
    ("bbox_head.reg_decomp.la_conv1.", "head.regression_decomposition.attention.0."),
    ("bbox_head.reg_decomp.la_conv2.", "head.regression_decomposition.attention.2."),
    ("bbox_head.cls_prob_conv1.", "head.classification_alignment.0."),
    ("bbox_head.cls_prob_conv2.", "head.classification_alignment.2."),
    ("bbox_head.reg_offset_conv1.", "head.regression_alignment.0."),
    ("bbox_head.reg_offset_conv2.", "head.regression_alignment.2."),
)


def matches(names: Collection[str]) -> bool:
    """Whether these are a TOOD's names, published or ours: no other head reduces its trunk for each task."""
    return (
        "bbox_head.cls_decomp.reduction_conv.conv.weight" in names
        or "head.classification_decomposition.reduction.weight" in names
    )


def layouts(names: Collection[str]) -> tuple[str, ...]:
    """Layouts in which published code reads such a network, the usual one first."""
    return ("original", "mmdet")


def from_published(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A published state dict, of either layout, under this package's names; unknown names, and ours, stay as they are.

    The pyramid's convolutions beyond the number of its laterals are its extra levels.
    """
    return rename(state, _names(count_maps(state), _PORT + _ORIGINAL))


def to_published(state: Mapping[str, Tensor], layout: str = "original") -> dict[str, Tensor]:
    """This package's state dict under the names of the layout "original" or "mmdet"."""
    names = _names(count_maps(state), _ORIGINAL if layout == "original" else _PORT)
    return {names.published(name): tensor for name, tensor in state.items()}


def infer_config(state: Mapping[str, Tensor], hints: Hints = Hints()) -> TOODConfig:  # noqa: B008 - frozen
    """The network of a state dict under this package's names.

    Whether it is anchor-based, and the groups of its GroupNorms, show in no tensor: `hints` say, or else the paper's
    anchor-free head with 32 groups (in a head too narrow for these, groups of at least 4 channels) is taken.

    Raises:
        ToodError: if a tensor is missing that tells the shape.
    """
    neck, map_channels = infer_neck(state)
    width = shape(state, "head.interactive.0.conv.weight", 4)[0]
    layers = count(state, "head.interactive.#.")
    offsets = "head.interactive.{}.conv.offset.weight"
    attention = _has(state, _ATTENTION)
    alignments = [name for name in (_SCORE_ALIGNMENT, _BOX_ALIGNMENT) if _has(state, name)]
    deformable = sum(offsets.format(layer) in state for layer in range(layers))
    head = THeadConfig(
        width=width,
        interactive_layers=layers,
        norm_groups=hints.norm_groups(width),
        attention_reduction=_reduction(width, state, _ATTENTION) if attention else THeadConfig.attention_reduction,
        alignment_reduction=_reduction(width, state, alignments[0]) if alignments else THeadConfig.alignment_reduction,
        deformable_layers=deformable,
        deform_groups=shape(state, offsets.format(0), 4)[0] // 27 if deformable else THeadConfig.deform_groups,
        anchor=_anchor(hints),
        anchor_scale=hints.anchor_scale(THeadConfig.anchor_scale),
        layer_attention=attention,
        score_alignment=_SCORE_ALIGNMENT in alignments,
        box_alignment=_BOX_ALIGNMENT in alignments,
    )
    return TOODConfig(
        classes=shape(state, "head.classifier.weight", 4)[0],
        backbone=infer_backbone(state, map_channels),
        neck=neck,
        head=head,
    )


def _has(state: Mapping[str, Tensor], first: str) -> bool:
    """Whether there is anything of the branch whose first tensor has this name."""
    return any(name.startswith(first.removesuffix("0.weight")) for name in state)


def _reduction(width: int, state: Mapping[str, Tensor], name: str) -> int:
    return max(width // shape(state, name, 4)[0], 1)


def _anchor(hints: Hints) -> Literal["free", "based"]:
    said = hints.find("bbox_head", "anchor_type")
    based = said == "anchor_based" if isinstance(said, str) else "anchor_based" in hints.file_name
    return "based" if based else "free"


def _names(maps: int, branches: tuple[tuple[str, str], ...]) -> Names:
    return Names((*RESNET_NAMES, *fpn_names(maps), *_HEAD, *branches))
