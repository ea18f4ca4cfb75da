"""Published names of backbones' tensors, and their shapes read from them."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from tood.errors import ToodError
from tood.models.backbones import AnyBackboneConfig
from tood.models.backbones.efficientnet_lite import SIZES, EfficientNetLiteConfig
from tood.models.backbones.resnet import ResNetConfig
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
    if "backbone.blocks.0.depthwise.conv.weight" in state:
        return _infer_efficientnet_lite(state, map_channels)
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
