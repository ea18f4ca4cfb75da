"""YOLOX's and YOLOX-PAI's named models: each a function that returns a configuration, and its card.

Files are MMDetection's where it hosts one, else the authors' own, else EasyCV's; only the first tell their hash.
"""

from __future__ import annotations

from dataclasses import replace

from tood.alignment import SimOTAAssigner, SimOTACriterionConfig
from tood.input import InputConfig
from tood.models.backbones import CSPDarknetConfig, RepVGGConfig
from tood.models.common.published import PublishedFile
from tood.models.necks import CSPPAFPNConfig
from tood.models.yolox.config import INPUT, YOLOXConfig
from tood.models.yolox.head import YOLOXHeadConfig
from tood.zoo.card import ModelCard, PublishedWeights, on_mmdetection

# Nano and Tiny see smaller pictures than the others.
LIGHT_INPUT = replace(INPUT, short=416, long=416)
# EasyCV normalises RGB as for ImageNet.
PAI_INPUT = replace(INPUT, mean=InputConfig().mean, std=InputConfig().std, channels="rgb")
_TINY_INPUT = replace(PAI_INPUT, short=448, long=448)


def yolox_nano() -> YOLOXConfig:
    """Depthwise separable throughout: 25.8 AP with 0.9 million parameters."""
    config = _yolox(16, (1, 3, 3, 1), depthwise=True)
    return replace(config, input=LIGHT_INPUT)


def yolox_tiny() -> YOLOXConfig:
    """For pictures of 416 pixels: MMDetection's has 32.0 AP, the authors' 32.8."""
    return replace(_yolox(24, (1, 3, 3, 1)), input=LIGHT_INPUT)


def yolox_s() -> YOLOXConfig:
    """The one that YOLOX-PAI begins with: 40.5 AP."""
    return _yolox(32, (1, 3, 3, 1))


def yolox_m() -> YOLOXConfig:
    """46.9 AP."""
    return _yolox(48, (2, 6, 6, 2))


def yolox_l() -> YOLOXConfig:
    """MMDetection's has 49.4 AP, the authors' 49.7."""
    return _yolox(64, (3, 9, 9, 3))


def yolox_x() -> YOLOXConfig:
    """MMDetection's has 50.9 AP, the authors' 51.1."""
    return _yolox(80, (4, 12, 12, 4))


def yolox_pai_s() -> YOLOXConfig:
    """YOLOX-S on a RepVGG-style backbone: 41.4 AP."""
    return replace(yolox_s(), backbone=RepVGGConfig(), input=PAI_INPUT)


def yolox_pai_s_asff() -> YOLOXConfig:
    """And with its neck's levels fused: 42.8 AP."""
    return _with_neck(yolox_pai_s(), CSPPAFPNConfig(blocks=1, fusion="asff"))


def yolox_pai_s_asff_sim() -> YOLOXConfig:
    """And with these fused without weights for their sizes."""
    return _with_neck(yolox_pai_s(), CSPPAFPNConfig(blocks=1, fusion="asff_sim"))


def yolox_pai_s_asff_thead3() -> YOLOXConfig:
    """With TOOD's trunk and task decomposition before the towers as well: 43.9 AP, the best published."""
    return _with_trunk(yolox_pai_s_asff(), 3)


def yolox_pai_s_asff_thead6() -> YOLOXConfig:
    """The same with TOOD's own six layers."""
    return _with_trunk(yolox_pai_s_asff(), 6)


def yolox_pai_s_gsconv_asff_thead3() -> YOLOXConfig:
    """The three-layer one with a neck of GSConvs."""
    return _with_trunk(_with_neck(yolox_pai_s(), CSPPAFPNConfig(blocks=1, gsconv="all", fusion="asff")), 3)


def yolox_pai_s_gsconvpart_asff() -> YOLOXConfig:
    """The one with fused levels, GSConvs between them."""
    return _with_neck(yolox_pai_s(), CSPPAFPNConfig(blocks=1, gsconv="part", fusion="asff"))


def yolox_digits() -> YOLOXConfig:
    """Of the budget of `tood_tiny`, and as that for training from scratch on few pictures."""
    return replace(_yolox(16, (1, 3, 3, 1)), input=_TINY_INPUT)


def yolox_pai_tiny() -> YOLOXConfig:
    """All that YOLOX-PAI adds, in the budget of `tood_tiny`."""
    return YOLOXConfig(
        backbone=RepVGGConfig(widths=(16, 24, 48, 96, 192), blocks=(2, 3, 3, 2)),
        neck=CSPPAFPNConfig(blocks=1, fusion="asff"),
        head=YOLOXHeadConfig(width=48, interactive_layers=3, norm_groups=8, attention_reduction=8),
        input=_TINY_INPUT,
    )


def _yolox(width: int, blocks: tuple[int, int, int, int], depthwise: bool = False) -> YOLOXConfig:
    """A size of YOLOX: channels of its stem, and bottlenecks of its stages."""
    return YOLOXConfig(
        backbone=CSPDarknetConfig(width=width, blocks=blocks, depthwise=depthwise),
        neck=CSPPAFPNConfig(blocks=blocks[0], depthwise=depthwise),
        head=YOLOXHeadConfig(width=4 * width, tower_block="depthwise" if depthwise else "plain"),
    )


def _with_neck(config: YOLOXConfig, neck: CSPPAFPNConfig) -> YOLOXConfig:
    return replace(config, neck=neck)


def _with_trunk(config: YOLOXConfig, layers: int) -> YOLOXConfig:
    return replace(config, head=replace(config.head, interactive_layers=layers))


def easycv_criterion() -> SimOTACriterionConfig:
    """What EasyCV's networks are trained by."""
    return SimOTACriterionConfig(assigner=SimOTAAssigner(epsilon=1e-8), box_loss="hull")


def _of_the_authors(name: str) -> PublishedWeights:
    return PublishedWeights(
        PublishedFile(f"https://github.com/Megvii-BaseDetection/YOLOX/releases/download/0.1.1rc0/{name}.pth", "")
    )


def _on_easycv(name: str) -> PublishedWeights:
    folder = "https://pai-vision-data-hz.oss-cn-zhangjiakou.aliyuncs.com/EasyCV/modelzoo/detection/yolox/yolox-pai"
    return PublishedWeights(PublishedFile(f"{folder}/model/{name}.pth", ""))


def _mmdetection(size: str, time: str, sha256_prefix: str) -> PublishedWeights:
    name = f"yolox_{size}_8x8_300e_coco"
    return on_mmdetection(f"yolox/{name}/{name}_{time}", sha256_prefix)


CARDS: tuple[ModelCard, ...] = (
    ModelCard("yolox_digits", yolox_digits, "small", criterion=SimOTACriterionConfig),
    ModelCard("yolox_pai_tiny", yolox_pai_tiny, "small", criterion=easycv_criterion),
    ModelCard(
        "yolox_nano",
        yolox_nano,
        "yolox_light",
        published_ap=25.8,
        criterion=SimOTACriterionConfig,
        weights=_of_the_authors("yolox_nano"),
    ),
    ModelCard(
        "yolox_tiny",
        yolox_tiny,
        "yolox_light",
        published_ap=32.0,
        criterion=SimOTACriterionConfig,
        weights=_mmdetection("tiny", "20211124_171234", "b4047906"),
    ),
    ModelCard(
        "yolox_s",
        yolox_s,
        "yolox",
        published_ap=40.5,
        published_ap_test_dev=40.5,
        criterion=SimOTACriterionConfig,
        weights=_mmdetection("s", "20211121_095711", "4592a793"),
    ),
    ModelCard(
        "yolox_m",
        yolox_m,
        "yolox",
        published_ap=46.9,
        published_ap_test_dev=47.2,
        criterion=SimOTACriterionConfig,
        weights=_of_the_authors("yolox_m"),
    ),
    ModelCard(
        "yolox_l",
        yolox_l,
        "yolox",
        published_ap=49.4,
        criterion=SimOTACriterionConfig,
        weights=_mmdetection("l", "20211126_140236", "d3bd2b23"),
    ),
    ModelCard(
        "yolox_x",
        yolox_x,
        "yolox",
        published_ap=50.9,
        criterion=SimOTACriterionConfig,
        weights=_mmdetection("x", "20211126_140254", "1ef88d67"),
    ),
    ModelCard(
        "yolox_pai_s",
        yolox_pai_s,
        "yolox",
        published_ap=41.4,
        criterion=easycv_criterion,
        weights=_on_easycv("pai_yoloxs"),
    ),
    ModelCard(
        "yolox_pai_s_asff",
        yolox_pai_s_asff,
        "yolox",
        published_ap=42.8,
        criterion=easycv_criterion,
        weights=_on_easycv("pai_yoloxs_asff"),
    ),
    ModelCard("yolox_pai_s_asff_sim", yolox_pai_s_asff_sim, "yolox", criterion=easycv_criterion),
    ModelCard(
        "yolox_pai_s_asff_thead3",
        yolox_pai_s_asff_thead3,
        "yolox",
        published_ap=43.9,
        criterion=easycv_criterion,
        weights=_on_easycv("pai_yoloxs_asff_tood3"),
    ),
    ModelCard("yolox_pai_s_asff_thead6", yolox_pai_s_asff_thead6, "yolox", criterion=easycv_criterion),
    ModelCard("yolox_pai_s_gsconv_asff_thead3", yolox_pai_s_gsconv_asff_thead3, "yolox", criterion=easycv_criterion),
    ModelCard("yolox_pai_s_gsconvpart_asff", yolox_pai_s_gsconvpart_asff, "yolox", criterion=easycv_criterion),
)
