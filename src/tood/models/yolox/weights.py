"""Names of YOLOX's tensors in published checkpoints and here, and the network that they show.

Two layouts are published: MMDetection's, and that of the original repository (Megvii-BaseDetection/YOLOX), which EasyCV
keeps and extends by the parts of YOLOX-PAI.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import TypeAlias

from torch import Tensor

from tood.input import InputConfig
from tood.models.backbones import CSPDarknetConfig, RepVGGConfig
from tood.models.backbones.weights import infer_backbone
from tood.models.common.published import Hints, Names, count, rename, shape
from tood.models.necks import CSPPAFPNConfig
from tood.models.necks.weights import infer_neck
from tood.models.yolox.config import INPUT, YOLOXConfig
from tood.models.yolox.head import TowerBlock, YOLOXHeadConfig

FRAMEWORK_TYPES = ("YOLOXHead", "YOLOX")
CLASSIFIER = ("head.class_predictors.#.weight", "head.class_predictors.#.bias")
# Beginnings of names (ours) that a plain YOLOX has not: RepVGG's blocks, GSConvs, fusions, the trunk and its tasks.
_OF_PAI = re.compile(
    r"backbone\.stem\.dense\.|neck\.(fusions|mixer|reduce_layers\.\d+\.conv1)\.|head\.interactive\."
    r"|head\.\w+_towers\.\d+\.\d+\.dense\."
)

# Networks of stems up to so wide are meant for smaller pictures (Nano and Tiny).
_LIGHT_WIDTH, _LIGHT_SIDE = 24, 416

_Pairs: TypeAlias = tuple[tuple[str, str], ...]


def matches(names: Collection[str]) -> bool:
    """Whether these are a YOLOX's names, published or ours."""
    return any(
        name in names
        for name in (
            "bbox_head.multi_level_conv_cls.0.weight",
            "head.cls_preds.0.weight",
            "head.class_predictors.0.weight",
        )
    )


def layouts(names: Collection[str]) -> tuple[str, ...]:
    """Layouts in which published code reads a network of these tensors (our names), the usual one first.

    MMDetection has none of YOLOX-PAI's parts.
    """
    return ("easycv",) if any(map(_OF_PAI.match, names)) else ("mmdet", "easycv")


def from_published(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A published state dict, of either layout, under our names; unknown names, and ours, stay as they are."""
    if "head.cls_preds.0.weight" not in state:
        return rename(state, Names(_MMDET))
    every = (*_EASYCV_HEAD, *_REPVGG, *_darknet(), *_CSP_NECK, *_GS_NECK, *_FUSIONS)
    return rename(state, Names(every))


def to_published(state: Mapping[str, Tensor], layout: str = "mmdet") -> dict[str, Tensor]:
    """This package's state dict under the names of one of its `layouts`."""
    if layout == "mmdet":
        names = Names(_MMDET)
    else:
        backbone = _REPVGG if _is_repvgg(state) else _darknet()
        neck = (*_GS_NECK, *_CSP_NECK) if "neck.mixer.conv1.conv.weight" in state else (*_CSP_NECK, *_GS_NECK)
        names = Names((*_EASYCV_HEAD, *backbone, *neck, *_FUSIONS))
    return {names.published(name): tensor for name, tensor in state.items()}


def infer_config(state: Mapping[str, Tensor], hints: Hints = Hints()) -> YOLOXConfig:  # noqa: B008 - frozen
    """The network of a state dict under this package's names.

    What its input is shows in no tensor: the original's and MMDetection's networks see pixels in OpenCV's order,
    EasyCV's (known by YOLOX-PAI's parts, or by `hints`) normalised RGB; narrow ones see smaller pictures. Groups of
    GroupNorms are as in `Hints.norm_groups`.

    Raises:
        ToodError: if a tensor is missing that tells the shape.
    """
    width = shape(state, "head.stems.0.conv.weight", 4)[0]
    layers = count(state, "head.interactive.#.")
    attention = "head.classification_decompositions.0.attention.0.weight"
    reduction = max(width // shape(state, attention, 4)[0], 1) if layers else YOLOXHeadConfig.attention_reduction
    head = YOLOXHeadConfig(
        width=width,
        tower_layers=count(state, "head.classification_towers.0.#."),
        tower_block=_tower_block(state),
        objectness="head.objectness_predictors.0.weight" in state,
        interactive_layers=layers,
        norm_groups=hints.norm_groups(width) if layers else YOLOXHeadConfig.norm_groups,
        attention_reduction=reduction,
    )
    neck, map_channels = infer_neck(state)
    config = YOLOXConfig(
        classes=shape(state, "head.class_predictors.0.weight", 4)[0],
        backbone=infer_backbone(state, map_channels),
        neck=neck,
        head=head,
    )
    return replace(config, input=_input(config, hints))


def _is_repvgg(names: Collection[str]) -> bool:
    return "backbone.stem.dense.conv.weight" in names


def _tower_block(state: Mapping[str, Tensor]) -> TowerBlock:
    first = "head.classification_towers.0.0."
    if f"{first}dense.conv.weight" in state:
        return "rep"
    return "depthwise" if f"{first}depthwise_conv.conv.weight" in state else "plain"


def _input(config: YOLOXConfig, hints: Hints) -> InputConfig:
    backbone, neck = config.backbone, config.neck
    extended = isinstance(neck, CSPPAFPNConfig) and (neck.gsconv, neck.fusion) != ("none", "none")
    pai = isinstance(backbone, RepVGGConfig) or extended or config.head.interactive_layers > 0
    easycv = pai or config.head.tower_block == "rep" or hints.find("nms_thre") is not None
    size = INPUT
    if isinstance(backbone, CSPDarknetConfig) and backbone.width <= _LIGHT_WIDTH and not pai:
        size = replace(INPUT, short=_LIGHT_SIDE, long=_LIGHT_SIDE)
    plain = InputConfig()
    return replace(size, mean=plain.mean, std=plain.std, channels="rgb") if easycv else size


def _layer(published: str, ours: str) -> _Pairs:
    """A convolution and its BatchNorm."""
    return (f"{published}.conv.", f"{ours}.conv."), (f"{published}.bn.", f"{ours}.norm.")


def _conv3x3(published: str, ours: str) -> _Pairs:
    """The same, or its depthwise separable form, in the original's names."""
    return (
        *_layer(f"{published}.dconv", f"{ours}.depthwise_conv"),
        *_layer(f"{published}.pconv", f"{ours}.pointwise_conv"),
        *_layer(published, ours),
    )


def _rep_block(published: str, ours: str) -> _Pairs:
    return (
        *_layer(f"{published}.rbr_dense", f"{ours}.dense"),
        *_layer(f"{published}.rbr_1x1", f"{ours}.pointwise"),
        (f"{published}.rbr_identity.", f"{ours}.identity."),
    )


def _csp_layer(published: str, ours: str) -> _Pairs:
    return (
        *_layer(f"{published}.conv1", f"{ours}.main_conv"),
        *_layer(f"{published}.conv2", f"{ours}.short_conv"),
        *_layer(f"{published}.conv3", f"{ours}.final_conv"),
        *_layer(f"{published}.m.#.conv1", f"{ours}.blocks.#.conv1"),
        *_conv3x3(f"{published}.m.#.conv2", f"{ours}.blocks.#.conv2"),
    )


def _gs_conv(published: str, ours: str) -> _Pairs:
    return *_layer(f"{published}.cv1", f"{ours}.conv1"), *_layer(f"{published}.cv2", f"{ours}.conv2")


def _gs_layer(published: str, ours: str) -> _Pairs:
    return (
        *_layer(f"{published}.cv1", f"{ours}.main_conv"),
        *_layer(f"{published}.cv2", f"{ours}.final_conv"),
        *_gs_conv(f"{published}.m.#.conv_lighting.#", f"{ours}.blocks.#.#"),
    )


def _fusion(published: str, ours: str, resizing: Mapping[str, int]) -> _Pairs:
    return (
        *(
            pair
            for name, level in resizing.items()
            for pair in _layer(f"{published}.{name}", f"{ours}.resizing.{level}")
        ),
        *_layer(f"{published}.weight_levels", f"{ours}.joining"),
        *_layer(f"{published}.weight_level_#", f"{ours}.weighting.#"),
        *_layer(f"{published}.expand", f"{ours}.expansion"),
    )


def _darknet() -> _Pairs:
    """The original's CSPDarknet: stages are numbered from 2 there."""
    return (
        *_layer("backbone.backbone.stem.conv", "backbone.stem.conv"),
        *_layer("backbone.backbone.dark5.1.conv1", "backbone.stage4.1.conv1"),
        *_layer("backbone.backbone.dark5.1.conv2", "backbone.stage4.1.conv2"),
        *(
            pair
            for stage in range(1, 5)
            for part in (_csp_layer, _conv3x3)
            for pair in part(f"backbone.backbone.dark{stage + 1}.#", f"backbone.stage{stage}.#")
        ),
    )


def _task(published: str, ours: str) -> _Pairs:
    return (
        (f"head.{published}_decomps.#.layer_attention.", f"head.{ours}_decompositions.#.attention."),
        (f"head.{published}_decomps.#.reduction_conv.conv.", f"head.{ours}_decompositions.#.reduction."),
        (f"head.{published}_decomps.#.reduction_conv.gn.", f"head.{ours}_decompositions.#.norm."),
        *_rep_block(f"head.{published}_convs.#.#", f"head.{ours}_towers.#.#"),
        *_conv3x3(f"head.{published}_convs.#.#", f"head.{ours}_towers.#.#"),
    )


# MMDetection's backbone and neck are called as ours, but for their BatchNorms.
_MMDET: _Pairs = (
    ("backbone.*.bn.", "backbone.*.norm."),
    *_layer("neck.out_convs.#", "head.stems.#"),
    ("neck.*.bn.", "neck.*.norm."),
    ("bbox_head.multi_level_cls_convs.#.*.bn.", "head.classification_towers.#.*.norm."),
    ("bbox_head.multi_level_reg_convs.#.*.bn.", "head.regression_towers.#.*.norm."),
    ("bbox_head.multi_level_cls_convs.", "head.classification_towers."),
    ("bbox_head.multi_level_reg_convs.", "head.regression_towers."),
    ("bbox_head.multi_level_conv_cls.", "head.class_predictors."),
    ("bbox_head.multi_level_conv_reg.", "head.box_predictors."),
    ("bbox_head.multi_level_conv_obj.", "head.objectness_predictors."),
)
_EASYCV_HEAD: _Pairs = (
    ("head.stems.#.bn.", "head.stems.#.norm."),
    ("head.cls_preds.", "head.class_predictors."),
    ("head.reg_preds.", "head.box_predictors."),
    ("head.obj_preds.", "head.objectness_predictors."),
    ("head.inter_convs.#.conv.", "head.interactive.#.conv."),
    ("head.inter_convs.#.gn.", "head.interactive.#.norm."),
    *_task("cls", "classification"),
    *_task("reg", "regression"),
)
_REPVGG: _Pairs = (
    *_rep_block("backbone.backbone.stage0", "backbone.stem"),
    *_rep_block("backbone.backbone.stage#.#", "backbone.stage#.#"),
    *_layer("backbone.backbone.stage#.#.cv1", "backbone.stage#.#.conv1"),
    *_layer("backbone.backbone.stage#.#.cv2", "backbone.stage#.#.conv2"),
)
_CSP_NECK: _Pairs = (
    *_layer("backbone.lateral_conv0", "neck.reduce_layers.0"),
    *_layer("backbone.reduce_conv1", "neck.reduce_layers.1"),
    *_conv3x3("backbone.bu_conv2", "neck.downsamples.0"),
    *_conv3x3("backbone.bu_conv1", "neck.downsamples.1"),
    *_csp_layer("backbone.C3_p4", "neck.top_down_blocks.0"),
    *_csp_layer("backbone.C3_p3", "neck.top_down_blocks.1"),
    *_csp_layer("backbone.C3_n3", "neck.bottom_up_blocks.0"),
    *_csp_layer("backbone.C3_n4", "neck.bottom_up_blocks.1"),
)
_GS_NECK: _Pairs = (
    *_gs_conv("backbone.gsconv1", "neck.reduce_layers.0"),
    *_gs_conv("backbone.gsconv2", "neck.reduce_layers.1"),
    *_gs_conv("backbone.gsconv3", "neck.mixer"),
    *_gs_conv("backbone.gsconv4", "neck.downsamples.0"),
    *_gs_conv("backbone.gsconv5", "neck.downsamples.1"),
    *_gs_layer("backbone.vovGSCSP1", "neck.top_down_blocks.0"),
    *_gs_layer("backbone.vovGSCSP2", "neck.top_down_blocks.1"),
    *_gs_layer("backbone.vovGSCSP3", "neck.bottom_up_blocks.0"),
    *_gs_layer("backbone.vovGSCSP4", "neck.bottom_up_blocks.1"),
)
# Levels are counted from the coarsest there.
_FUSIONS: _Pairs = (
    *_fusion("backbone.asff_1", "neck.fusions.2", {"stride_level_1": 1, "stride_level_2": 2}),
    *_fusion("backbone.asff_2", "neck.fusions.1", {"compress_level_0": 0, "stride_level_2": 2}),
    *_fusion("backbone.asff_3", "neck.fusions.0", {"compress_level_0": 0, "compress_level_1": 1}),
)
