"""EfficientNet-Lite (Tan and Le 2019; Liu 2020): MBConv blocks with ReLU6 and without squeeze-and-excitation."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor, nn

from tood.models.backbones.imagenet import EFFICIENTNET_LITE_FILES
from tood.models.backbones.staged import StagedBackbone, check_frozen
from tood.models.common.parts import check_outputs
from tood.models.common.published import Names, PackagedFile, count, rename
from tood.models.common.sizes import require_factor
from tood.ops import conv_norm, fused_conv, known
from tood.ops.activation import Activation
from tood.ops.inference import InferenceConv2d
from tood.ops.same_conv import SameConv2d, conv_kind


@dataclass(frozen=True)
class _Stage:
    """Blocks of Lite0 that follow each other.

    Attributes:
        blocks: how many; their number and widths grow in the larger ones.
        kernel: side of the depthwise convolution.
        stride: of the first block.
        expansion: channels within a block over those that come in.
        channels: that it gives.
    """

    blocks: int
    kernel: int
    stride: int
    expansion: int
    channels: int


_STAGES = (
    _Stage(1, 3, 1, 1, 16),
    _Stage(2, 3, 2, 6, 24),
    _Stage(2, 5, 2, 6, 40),
    _Stage(3, 3, 2, 6, 80),
    _Stage(3, 5, 1, 6, 112),
    _Stage(4, 5, 2, 6, 192),
    _Stage(1, 3, 1, 6, 320),
)
_STEM = 32
# Widths are multiples of it.
_DIVISOR = 8
# Width and depth of Lite0 to Lite4.
SIZES: tuple[tuple[float, float], ...] = ((1.0, 1.0), (1.0, 1.1), (1.1, 1.2), (1.2, 1.4), (1.4, 1.8))

# The names of the PyTorch port that its ImageNet weights are published under, and ours.
_PUBLISHED = Names(
    (
        ("_conv_stem.", "stem.conv."),
        ("_bn0.", "stem.norm."),
        ("_blocks.#._expand_conv.", "blocks.#.expand.conv."),
        ("_blocks.#._bn0.", "blocks.#.expand.norm."),
        ("_blocks.#._depthwise_conv.", "blocks.#.depthwise.conv."),
        ("_blocks.#._bn1.", "blocks.#.depthwise.norm."),
        ("_blocks.#._project_conv.", "blocks.#.project.conv."),
        ("_blocks.#._bn2.", "blocks.#.project.norm."),
    )
)


@dataclass(frozen=True)
class EfficientNetLiteConfig:
    """Shape of the backbone; the defaults are Lite0.

    Attributes:
        width, depth: factors of Lite0's channels and blocks, above 0 and up to 8; `SIZES` has those of Lite0 to Lite4.
        frozen_stages: the stem and so many of the seven stages do not learn; 0 freezes the stem alone, -1 nothing.
        norm_eval: BatchNorms keep their running statistics while training (their affine weights learn).
        outputs: stages whose maps are given, 0 being the first (stride 2); what follows the last of them is left out.
    """

    kind: Literal["efficientnet_lite"] = "efficientnet_lite"
    width: float = 1.0
    depth: float = 1.0
    frozen_stages: int = -1
    norm_eval: bool = True
    outputs: tuple[int, ...] = (2, 4, 6)

    def __post_init__(self) -> None:
        require_factor("model.backbone.width", self.width)
        require_factor("model.backbone.depth", self.depth)
        check_frozen(self.frozen_stages, self.stages)
        check_outputs(self.kind, self.outputs, self.stages)

    @property
    def channels(self) -> tuple[int, ...]:
        """Channels of each output map."""
        return tuple(self.stage_channels(stage) for stage in self.outputs)

    @property
    def strides(self) -> tuple[int, ...]:
        """Input pixels a cell of each output map."""
        return tuple(math.prod(stage.stride for stage in _STAGES[: last + 1]) * 2 for last in self.outputs)

    @property
    def description(self) -> str:
        """A few words, such as "EfficientNet-Lite0"."""
        size = (self.width, self.depth)
        return f"EfficientNet-Lite{SIZES.index(size) if size in SIZES else f' {self.width:g} x {self.depth:g}'}"

    @property
    def imagenet_file(self) -> PackagedFile | None:
        """Weights of ImageNet classification, None if there are none."""
        return EFFICIENTNET_LITE_FILES.get((self.width, self.depth))

    def from_scratch(self) -> EfficientNetLiteConfig:
        """The same, all of which learns: what is drawn at random has everything to learn."""
        return replace(self, frozen_stages=-1, norm_eval=False)

    def thawed(self) -> EfficientNetLiteConfig:
        """The same with its stem alone at rest, where more of it was to be."""
        return replace(self, frozen_stages=min(self.frozen_stages, 0))

    def build(self) -> EfficientNetLite:
        """The backbone with freshly initialised weights."""
        return EfficientNetLite(self)

    @property
    def stages(self) -> int:
        """Stages that maps may be taken of."""
        return len(_STAGES)

    @property
    def divisor(self) -> int:
        """What the sides of its images are multiples of."""
        return 1

    def stage_channels(self, stage: int) -> int:
        """Channels that a stage gives."""
        wanted = _STAGES[stage].channels * self.width
        rounded = max(_DIVISOR, int(wanted + _DIVISOR / 2) // _DIVISOR * _DIVISOR)
        return rounded + _DIVISOR if rounded < 0.9 * wanted else rounded

    def stage_blocks(self, stage: int) -> int:
        """Blocks of a stage; the first and the last stage are the same in all sizes."""
        blocks = _STAGES[stage].blocks
        return blocks if stage in (0, len(_STAGES) - 1) else math.ceil(blocks * self.depth)


class ConvNorm(nn.Module):
    """A convolution without bias and BatchNorm, then ReLU6 or nothing.

    Its zeros outside of the map are those of TensorFlow.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: int,
        stride: int = 1,
        groups: int = 1,
        activation: Activation = "relu6",
    ) -> None:
        super().__init__()
        self.conv: nn.Conv2d
        if stride == 1:
            self.conv = nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, groups=groups, bias=False)
        else:
            self.conv = SameConv2d(inputs, outputs, kernel, stride, groups=groups, bias=False)
        self.norm = nn.BatchNorm2d(outputs, eps=1e-3, momentum=0.01)
        self.activation: Activation = activation

    def forward(self, x: Tensor, added: Tensor | None = None) -> Tensor:
        """[B, inputs, H, W] -> [B, outputs, ceil(H / stride), ceil(W / stride)], with `added` of that shape added."""
        return conv_norm(self.conv, self.norm, x, self.activation, added)

    def fuse(self, dtype: torch.dtype) -> InferenceConv2d:
        """The same as one operation, to predict with; raises `CannotFuse` where a layer is of another kind."""
        known(self, ConvNorm)
        return fused_conv(known(self.conv, conv_kind(self.conv)), self.norm, self.activation, dtype)


class MBConv(nn.Module):
    """Widens by a 1x1 convolution, filters each channel by itself, narrows by a 1x1 convolution without activation.

    With a shortcut, which the first block of a stage has not, what came in is added.
    """

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int, expansion: int, has_shortcut: bool) -> None:
        super().__init__()
        middle = inputs * expansion
        self.expand = ConvNorm(inputs, middle, 1) if expansion > 1 else None
        self.depthwise = ConvNorm(middle, middle, kernel, stride, groups=middle)
        self.project = ConvNorm(middle, outputs, 1, activation="none")
        self.has_shortcut = has_shortcut

    def forward(self, x: Tensor) -> Tensor:
        """[B, inputs, H, W] -> [B, outputs, ceil(H / stride), ceil(W / stride)]."""
        wide = x if self.expand is None else self.expand(x)
        out: Tensor = self.project(self.depthwise(wide), x if self.has_shortcut else None)
        return out

    def fuse(self, dtype: torch.dtype) -> InferenceMBConv:
        """The same as fewer operations, to predict with; raises `CannotFuse` where a layer is of another kind."""
        return InferenceMBConv(self, dtype)


class InferenceMBConv(nn.Module):
    """`MBConv` without gradient; where it has a shortcut, its output lies in the memory of what came in.

    Raises:
        CannotFuse: if a layer is of another kind.
    """

    def __init__(self, block: MBConv, dtype: torch.dtype) -> None:
        super().__init__()
        known(block, MBConv)
        layers = [layer for layer in (block.expand, block.depthwise) if layer is not None]
        self.filters = nn.Sequential(*(known(layer, ConvNorm).fuse(dtype) for layer in layers))
        self.project = known(block.project, ConvNorm).fuse(dtype)
        self.has_shortcut = block.has_shortcut

    def forward(self, x: Tensor) -> Tensor:
        """[B, inputs, H, W], overwritten where there is a shortcut -> [B, outputs, h, w]."""
        return self.project(self.filters(x), x if self.has_shortcut else None)  # type: ignore[no-any-return]


class EfficientNetLite(StagedBackbone):
    """Feature maps of an image at strides 2 to 32."""

    def __init__(self, config: EfficientNetLiteConfig) -> None:
        super().__init__(config.frozen_stages, config.norm_eval)
        self.config = config
        self.stem = ConvNorm(3, _STEM, 3, 2)
        blocks: list[MBConv] = []
        self._ends: list[int] = []  # number of the first block after each stage
        inputs = _STEM
        for number, stage in enumerate(_STAGES[: max(config.outputs) + 1]):
            outputs = config.stage_channels(number)
            for i in range(config.stage_blocks(number)):
                stride = stage.stride if i == 0 else 1
                blocks.append(MBConv(inputs, outputs, stage.kernel, stride, stage.expansion, has_shortcut=i > 0))
                inputs = outputs
            self._ends.append(len(blocks))
        self.blocks = nn.ModuleList(blocks)
        self._initialise()
        self.freeze()

    def forward(self, images: Tensor) -> list[Tensor]:
        """[B, 3, H, W] normalised -> the configured stages' maps [B, C, H / stride, W / stride]."""
        x = self.stem(images)
        maps = []
        for number, stage in enumerate(self.stages()[1:]):
            for block in stage:
                x = block(x)
            if number in self.config.outputs:
                maps.append(x)
        return maps

    def stages(self) -> list[list[nn.Module]]:
        """Its parts from the image on, the stem first: what is frozen, and learns at a rate of its own, together."""
        starts = [0, *self._ends]
        return [[self.stem], *(list(self.blocks[start:end]) for start, end in zip(starts, self._ends, strict=False))]

    def fuse(self, dtype: torch.dtype) -> InferenceEfficientNetLite:
        """The same as fewer operations, to predict with; raises `CannotFuse` where a part is of another kind."""
        return InferenceEfficientNetLite(self, dtype)

    def from_imagenet(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """A classifier's tensors, published or ours, under this backbone's names, without what it has not."""
        ours = rename(tensors, _PUBLISHED)
        ends = ("_conv_head.", "_bn1.", "_fc.")
        beyond = tuple(f"blocks.{number}." for number in range(len(self.blocks), count(ours, "blocks.#.")))
        return {name: tensor for name, tensor in ours.items() if not name.startswith((*ends, *beyond))}

    def _initialise(self) -> None:
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                fan_out = module.weight[0, 0].numel() * module.out_channels // module.groups
                nn.init.normal_(module.weight, std=math.sqrt(2 / fan_out))


class InferenceEfficientNetLite(nn.Module):
    """`EfficientNetLite` without gradient.

    Raises:
        CannotFuse: if a part of the backbone is of another kind.
    """

    def __init__(self, backbone: EfficientNetLite, dtype: torch.dtype) -> None:
        super().__init__()
        known(backbone, EfficientNetLite)
        self.dtype = dtype
        self.stem = known(backbone.stem, ConvNorm).fuse(dtype)
        blocks = ([known(block, MBConv).fuse(dtype) for block in stage] for stage in backbone.stages()[1:])
        self.stages = nn.ModuleList(nn.Sequential(*stage) for stage in blocks)
        self.outputs = backbone.config.outputs

    def forward(self, images: Tensor) -> list[Tensor]:
        """[B, 3, H, W] normalised -> the configured stages' maps [B, C, H / stride, W / stride]."""
        x = self.stem(images.to(self.dtype, memory_format=torch.channels_last))
        maps = []
        # The first block of a stage has no shortcut: no map that is given is overwritten.
        for number, stage in enumerate(self.stages):
            x = stage(x)
            if number in self.outputs:
                maps.append(x)
        return maps
