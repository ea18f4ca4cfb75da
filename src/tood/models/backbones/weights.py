"""Published names of backbones' tensors, and their shapes read from them."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from tood.errors import ToodError
from tood.models.backbones import AnyBackboneConfig
from tood.models.backbones.csp_darknet import CSPDarknetConfig
from tood.models.backbones.csp_rep_resnet import CSPRepResNetConfig
from tood.models.backbones.efficientnet_lite import SIZES, EfficientNetLiteConfig
from tood.models.backbones.repvgg import RepVGGConfig
from tood.models.backbones.resnet import ResNetConfig
from tood.models.common.paddle_names import conv_norm_names, csp_names
from tood.models.common.published import count, shape

# MMDetection has torchvision's names, but for the deformable convolutions' second one.
RESNET_NAMES: tuple[tuple[str, str], ...] = (("backbone.*.conv_offset.", "backbone.*.offset."),)


def infer_backbone(state: Mapping[str, Tensor], map_channels: tuple[int, ...]) -> AnyBackboneConfig:
    """The backbone that a detector's tensors show.

    Args:
        state: the detector's tensors under our names.
        map_channels: channels of the maps that the neck takes, which tell the stages that give them.

    Raises:
        ToodError: if a tensor is missing that tells the shape.
    """
    maps = len(map_channels)
    if "backbone.blocks.0.depthwise.conv.weight" in state:
        return _infer_efficientnet_lite(state, map_channels)
    if any(name.startswith("backbone.down_stages.") for name in state):
        return infer_csp_rep_resnet(state, maps)
    if "backbone.stem.dense.conv.weight" in state:
        return infer_repvgg(state, maps)
    if any(name.startswith("backbone.stage1.") for name in state):
        return infer_csp_darknet(state, maps)
    return _infer_resnet(state, map_channels)


def _infer_resnet(state: Mapping[str, Tensor], map_channels: tuple[int, ...]) -> ResNetConfig:
    stem = shape(state, "backbone.conv1.weight", 4)[0]
    stages = count(state, "backbone.layer#.")
    blocks = tuple(count(state, f"backbone.layer{stage + 1}.#.") for stage in range(stages))
    bottleneck = "backbone.layer1.0.conv3.weight" in state
    if bottleneck:
        width = shape(state, "backbone.layer1.0.conv3.weight", 4)[0] // 4
        middle, group_width = shape(state, "backbone.layer1.0.conv2.weight", 4)[:2]
        groups = middle // group_width
    else:
        width, groups, group_width = shape(state, "backbone.layer1.0.conv1.weight", 4)[0], 1, 0
    channels = [width * 2**stage * (4 if bottleneck else 1) for stage in range(stages)]
    return ResNetConfig(
        block="bottleneck" if bottleneck else "basic",
        blocks=blocks,
        width=width,
        stem_width=stem,
        groups=groups,
        width_per_group=group_width if groups > 1 else ResNetConfig.width_per_group,
        outputs=tuple(stage for stage in range(stages) if channels[stage] in map_channels),
        deformable_stages=tuple(
            stage for stage in range(stages) if f"backbone.layer{stage + 1}.0.conv2.offset.weight" in state
        ),
    )


def _infer_efficientnet_lite(state: Mapping[str, Tensor], map_channels: tuple[int, ...]) -> EfficientNetLiteConfig:
    blocks = count(state, "backbone.blocks.#.")
    found = [shape(state, f"backbone.blocks.{i}.project.conv.weight", 4)[0] for i in range(blocks)]
    for width, depth in SIZES:
        config = EfficientNetLiteConfig(width=width, depth=depth)
        stages = range(config.stages)
        channels = [config.stage_channels(stage) for stage in stages for _ in range(config.stage_blocks(stage))]
        outputs = tuple(stage for stage in stages if config.stage_channels(stage) in map_channels)
        if channels[:blocks] == found and len(outputs) == len(map_channels):
            return EfficientNetLiteConfig(width=width, depth=depth, outputs=outputs)
    raise ToodError(f"its backbone of {blocks} inverted bottlenecks is none of EfficientNet-Lite0 to 4")


def csp_rep_resnet_names() -> tuple[tuple[str, str], ...]:
    """PaddleDetection's names of a CSPRepResNet's tensors and ours."""
    stage, ours = "backbone.stages.#.", "backbone.down_stages.#."
    return (
        *(pair for i in range(3) for pair in conv_norm_names(f"backbone.stem.conv{i + 1}.", f"backbone.stem.{i}.")),
        *conv_norm_names(f"{stage}conv_down.", f"{ours}down."),
        *csp_names(stage, f"{ours}csp.", "blocks"),
        (f"{stage}attn.fc.", f"{ours}csp.attention.fc."),
    )


def infer_csp_rep_resnet(state: Mapping[str, Tensor], maps: int) -> CSPRepResNetConfig:
    """The backbone that a detector's tensors (under our names) show, whose last stages give so many maps.

    Raises:
        ToodError: if a tensor is missing that tells the shape.
    """
    stages = max(count(state, "backbone.down_stages.#."), maps)
    outputs = [f"backbone.down_stages.{stage}.csp.out.conv.weight" for stage in range(stages)]
    return CSPRepResNetConfig(
        widths=tuple(shape(state, name, 4)[0] for name in ("backbone.stem.2.conv.weight", *outputs)),
        blocks=tuple(count(state, f"backbone.down_stages.{stage}.csp.blocks.#.") for stage in range(stages)),
        alpha="backbone.down_stages.0.csp.blocks.0.rep.alpha" in state,
        outputs=tuple(range(stages - maps, stages)),
    )


def infer_csp_darknet(state: Mapping[str, Tensor], maps: int) -> CSPDarknetConfig:
    """The backbone that a detector's tensors (under our names) show, whose last stages give so many maps.

    Raises:
        ToodError: if a tensor is missing that tells the shape.
    """
    stages = count(state, "backbone.stage#.")
    # Before the last stage's layer stands the pooling.
    places = [1] * (stages - 1) + [2]
    return CSPDarknetConfig(
        width=shape(state, "backbone.stem.conv.conv.weight", 4)[0],
        blocks=tuple(
            count(state, f"backbone.stage{stage}.{place}.blocks.#.") for stage, place in enumerate(places, start=1)
        ),
        depthwise="backbone.stage1.0.depthwise_conv.conv.weight" in state,
        outputs=tuple(range(stages - maps, stages)),
    )


def infer_repvgg(state: Mapping[str, Tensor], maps: int) -> RepVGGConfig:
    """The backbone that a detector's tensors (under our names) show, whose last stages give so many maps.

    Raises:
        ToodError: if a tensor is missing that tells the shape.
    """
    stages = range(1, count(state, "backbone.stage#.") + 1)
    stem = shape(state, "backbone.stem.dense.conv.weight", 4)[0]
    return RepVGGConfig(
        widths=(stem, *(shape(state, f"backbone.stage{stage}.0.dense.conv.weight", 4)[0] for stage in stages)),
        blocks=tuple(
            count({name for name in state if ".dense." in name}, f"backbone.stage{stage}.#.") for stage in stages
        ),
        outputs=tuple(range(len(stages) - maps, len(stages))),
    )
