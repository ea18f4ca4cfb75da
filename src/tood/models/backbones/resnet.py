"""ResNet (He et al. 2015) and ResNeXt (Xie et al. 2016) with torchvision's layer names."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from tood.errors import SettingError
from tood.models.backbones.imagenet import RESNET_FILES
from tood.models.backbones.staged import StagedBackbone, check_frozen
from tood.models.common.conv_block import NarrowProjection, known_conv
from tood.models.common.deform_conv import DeformConv2d, fused
from tood.models.common.published import PublishedFile
from tood.models.common.sizes import MOST_CHANNELS, MOST_LAYERS, MOST_STAGES, require_each, require_whole
from tood.ops import CannotFuse, conv_norm, fused_conv, known, may_stand_in

# What the classifiers of torchvision, timm and OpenMMLab have beyond the backbone.
_CLASSIFIERS = ("fc.", "head.", "classifier.")


@dataclass(frozen=True)
class ResNetConfig:
    """Shape of the backbone; the defaults are ResNet-50 as the published recipes train it.

    Attributes:
        block: "basic" (two 3x3 convolutions, ResNet-18/34) or "bottleneck" (1x1, 3x3 with the stride, 1x1).
        blocks: residual blocks in each stage.
        width: channels of the first stage; each later stage has twice as many (four times that after a bottleneck).
        stem_width: channels of the 7x7 stem.
        groups, width_per_group: of the bottleneck's 3x3 convolution; ResNeXt-101 64x4d has 64 and 4. With one group
            the bottleneck is as wide as its stage.
        frozen_stages: the stem and so many stages do not learn; 0 freezes the stem alone, -1 nothing.
        zero_init_residual: each block starts as the identity (Goyal et al. 2017). Small networks that learn from
            scratch for a short time are better off without: their few blocks then work from the first step on.
        norm_eval: BatchNorms keep their running statistics while training (their affine weights learn).
        outputs: stages whose maps are given, 0 being C2.
        deformable_stages: stages whose bottlenecks have a deformable 3x3 convolution (DCNv2).
    """

    # Files from before there was another backbone name no kind.
    UNNAMED_KIND: ClassVar[bool] = True

    kind: Literal["resnet"] = "resnet"
    block: Literal["basic", "bottleneck"] = "bottleneck"
    blocks: tuple[int, ...] = (3, 4, 6, 3)
    width: int = 64
    stem_width: int = 64
    groups: int = 1
    width_per_group: int = 64
    frozen_stages: int = 1
    zero_init_residual: bool = True
    norm_eval: bool = True
    outputs: tuple[int, ...] = (1, 2, 3)
    deformable_stages: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        require_each("model.backbone.blocks", self.blocks, MOST_LAYERS, MOST_STAGES)
        require_whole("model.backbone.width", self.width, MOST_CHANNELS)
        require_whole("model.backbone.stem_width", self.stem_width, MOST_CHANNELS)
        require_whole("model.backbone.groups", self.groups, MOST_CHANNELS)
        require_whole("model.backbone.width_per_group", self.width_per_group, MOST_CHANNELS)
        check_frozen(self.frozen_stages, self.stages)

    @property
    def expansion(self) -> int:
        """Output channels of a block over its stage's width."""
        return 4 if self.block == "bottleneck" else 1

    @property
    def stages(self) -> int:
        """Stages that maps may be taken of."""
        return len(self.blocks)

    @property
    def divisor(self) -> int:
        """What the sides of its images are multiples of."""
        return 1

    @property
    def channels(self) -> tuple[int, ...]:
        """Channels of each output map."""
        return tuple(self.width * 2**stage * self.expansion for stage in self.outputs)

    @property
    def strides(self) -> tuple[int, ...]:
        """Input pixels a cell of each output map."""
        return tuple(4 * 2**stage for stage in self.outputs)

    @property
    def description(self) -> str:
        """A few words, such as "ResNet-50"."""
        layers = 2 + sum(self.blocks) * (3 if self.block == "bottleneck" else 2)
        kind = "ResNet" if self.groups == 1 else "ResNeXt"
        width = f" {self.groups}x{self.width_per_group}d" if self.groups > 1 else ""
        return f"{kind}-{layers}{width}{' and DCNv2' if self.deformable_stages else ''}"

    @property
    def imagenet_file(self) -> PublishedFile | None:
        """Weights of ImageNet classification that the published recipes start from, None if there are none.

        A deformable convolution takes the ordinary one's weight, so deformable stages make no difference.
        """
        if (self.width, self.stem_width) != (64, 64):
            return None
        return RESNET_FILES.get((self.block, self.blocks, self.groups, self.width_per_group))

    def from_scratch(self) -> ResNetConfig:
        """The same, all of which learns: what is drawn at random has everything to learn."""
        return replace(self, frozen_stages=-1, norm_eval=False)

    def thawed(self) -> ResNetConfig:
        """The same with its stem alone at rest, where more of it was to be."""
        return replace(self, frozen_stages=min(self.frozen_stages, 0))

    def build(self) -> ResNet:
        """The backbone with freshly initialised weights."""
        return ResNet(self)


class BasicBlock(nn.Module):
    """Two 3x3 convolutions beside the identity."""

    def __init__(self, inputs: int, planes: int, stride: int, deformable: bool, config: ResNetConfig) -> None:
        super().__init__()
        assert not deformable, "only bottlenecks are deformable"
        self.conv1 = nn.Conv2d(inputs, planes, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(planes)
        self.conv2 = nn.Conv2d(planes, planes, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(planes)
        self.downsample = _shortcut(inputs, planes, stride)

    def forward(self, x: Tensor) -> Tensor:
        """[B, inputs, H, W] -> [B, planes, H / stride, W / stride]."""
        shortcut = _joined(x, self.downsample)
        return conv_norm(self.conv2, self.bn2, conv_norm(self.conv1, self.bn1, x), added=shortcut)

    @property
    def last_norm(self) -> nn.BatchNorm2d:
        """The norm whose output joins the identity."""
        return self.bn2

    def fuse(self, dtype: torch.dtype) -> InferenceBlock:
        """The same as fewer operations, to predict with; raises `CannotFuse` where a layer is of another kind."""
        known(self, BasicBlock)
        return InferenceBlock([(self.conv1, self.bn1), (self.conv2, self.bn2)], self.downsample, dtype)


class Bottleneck(nn.Module):
    """1x1, 3x3, 1x1 beside the identity; the stride sits on the 3x3 ("pytorch" style)."""

    def __init__(self, inputs: int, planes: int, stride: int, deformable: bool, config: ResNetConfig) -> None:
        super().__init__()
        middle = planes if config.groups == 1 else planes * config.width_per_group // config.width * config.groups
        outputs = planes * config.expansion
        self.conv1 = nn.Conv2d(inputs, middle, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(middle)
        self.conv2: nn.Conv2d
        if deformable:
            self.conv2 = DeformConv2d(middle, middle, stride, config.groups)
        else:
            self.conv2 = nn.Conv2d(middle, middle, 3, stride, padding=1, groups=config.groups, bias=False)
        self.bn2 = nn.BatchNorm2d(middle)
        self.conv3 = nn.Conv2d(middle, outputs, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(outputs)
        self.downsample = _shortcut(inputs, outputs, stride)

    def forward(self, x: Tensor) -> Tensor:
        """[B, inputs, H, W] -> [B, 4 * planes, H / stride, W / stride]."""
        shortcut = _joined(x, self.downsample)
        out = conv_norm(self.conv2, self.bn2, conv_norm(self.conv1, self.bn1, x))
        return conv_norm(self.conv3, self.bn3, out, added=shortcut)

    @property
    def last_norm(self) -> nn.BatchNorm2d:
        """The norm whose output joins the identity."""
        return self.bn3

    def fuse(self, dtype: torch.dtype) -> InferenceBlock:
        """The same as fewer operations, to predict with; raises `CannotFuse` where a layer is of another kind."""
        known(self, Bottleneck)
        layers = [(self.conv1, self.bn1), (self.conv2, self.bn2), (self.conv3, self.bn3)]
        return InferenceBlock(layers, self.downsample, dtype)


class InferenceBlock(nn.Module):
    """A residual block without gradient; its output lies in the memory of what it was added to."""

    def __init__(
        self, layers: Sequence[tuple[nn.Module, nn.Module]], downsample: nn.Module | None, dtype: torch.dtype
    ) -> None:
        super().__init__()
        *others, (last, last_norm) = layers
        self.body = nn.Sequential(*(fused(conv, norm, True, dtype) for conv, norm in others))
        self.last = fused(last, last_norm, True, dtype)
        self.shortcut: nn.Module | None = None
        if downsample is not None:
            conv, norm = known(downsample, nn.Sequential)
            self.shortcut = fused_conv(known_conv(conv), norm, False, dtype)

    def forward(self, x: Tensor) -> Tensor:
        """[B, inputs, H, W], overwritten where there is no shortcut -> [B, outputs, h, w]."""
        out = self.body(x)
        return self.last(out, x if self.shortcut is None else self.shortcut(x))  # type: ignore[no-any-return]


def _joined(x: Tensor, downsample: nn.Module | None) -> Tensor:
    """What a block's output is added to."""
    if downsample is None:
        return x
    if may_stand_in(((downsample, nn.Sequential),), (x,)):
        layers = list(downsample.children())
        if len(layers) == 2:
            return conv_norm(layers[0], layers[1], x, "none")
    return downsample(x)  # type: ignore[no-any-return]


def _shortcut(inputs: int, outputs: int, stride: int) -> nn.Sequential | None:
    if stride == 1 and inputs == outputs:
        return None
    convolution = nn.Conv2d if inputs >= 16 else NarrowProjection
    return nn.Sequential(convolution(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))


class ResNet(StagedBackbone):
    """Feature maps of an image at strides 4, 8, 16, 32."""

    def __init__(self, config: ResNetConfig) -> None:
        super().__init__(config.frozen_stages, config.norm_eval)
        self.config = config
        self.conv1 = nn.Conv2d(3, config.stem_width, 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(config.stem_width)
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        deformable = config.deformable_stages
        there_are = range(config.stages if config.block == "bottleneck" else 0)
        if len(set(deformable).intersection(there_are)) != len(deformable):
            raise SettingError(
                "model.backbone.deformable_stages",
                f"is {list(deformable)}: expected different stages from 0 to {config.stages - 1}, of bottlenecks alone",
            )
        block = Bottleneck if config.block == "bottleneck" else BasicBlock
        inputs = config.stem_width
        self.stage_names = [f"layer{stage + 1}" for stage in range(len(config.blocks))]
        for stage, (name, count) in enumerate(zip(self.stage_names, config.blocks, strict=True)):
            planes = config.width * 2**stage
            layers: list[nn.Module] = []
            for i in range(count):
                stride = 2 if stage > 0 and i == 0 else 1
                layers.append(block(inputs, planes, stride, stage in config.deformable_stages, config))
                inputs = planes * config.expansion
            self.add_module(name, nn.Sequential(*layers))
        self._initialise()
        self.freeze()

    def forward(self, images: Tensor) -> list[Tensor]:
        """[B, 3, H, W] normalised -> the configured stages' maps [B, C, H / stride, W / stride]."""
        x = self.maxpool(conv_norm(self.conv1, self.bn1, images))
        maps = []
        for stage, name in enumerate(self.stage_names):
            x = getattr(self, name)(x)
            if stage in self.config.outputs:
                maps.append(x)
        return maps

    def stages(self) -> list[list[nn.Module]]:
        """Its parts from the image on, the stem first: what is frozen, and learns at a rate of its own, together."""
        return [[self.conv1, self.bn1], *([getattr(self, name)] for name in self.stage_names)]

    def fuse(self, dtype: torch.dtype) -> InferenceResNet:
        """The same as fewer operations, to predict with; raises `CannotFuse` where a part is of another kind."""
        return InferenceResNet(self, dtype)

    def from_imagenet(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Tensors of torchvision's, timm's or OpenMMLab's classifier under this backbone's names."""
        if any(name.startswith("backbone.") for name in tensors):
            tensors = {n.removeprefix("backbone."): t for n, t in tensors.items() if n.startswith("backbone.")}
        return {name: tensor for name, tensor in tensors.items() if not name.startswith(_CLASSIFIERS)}

    def _initialise(self) -> None:
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            elif isinstance(module, Bottleneck | BasicBlock) and self.config.zero_init_residual:
                nn.init.zeros_(module.last_norm.weight)
        for module in self.modules():
            if isinstance(module, DeformConv2d):
                nn.init.zeros_(module.offset.weight)


class InferenceResNet(nn.Module):
    """`ResNet` without gradient.

    Raises:
        CannotFuse: if a part of the backbone is of another kind.
    """

    def __init__(self, backbone: ResNet, dtype: torch.dtype) -> None:
        super().__init__()
        known(backbone, ResNet)
        self.dtype = dtype
        self.stem = fused(backbone.conv1, backbone.bn1, True, dtype)
        self.maxpool = copy.deepcopy(backbone.maxpool)
        stages = (known(getattr(backbone, name), nn.Sequential) for name in backbone.stage_names)
        self.stages = nn.ModuleList(nn.Sequential(*(_fused_block(block, dtype) for block in stage)) for stage in stages)
        self.outputs = backbone.config.outputs

    def forward(self, images: Tensor) -> list[Tensor]:
        """[B, 3, H, W] normalised -> the configured stages' maps [B, C, H / stride, W / stride]."""
        x = self.maxpool(self.stem(images.to(self.dtype, memory_format=torch.channels_last)))
        maps = []
        # The first block of a later stage has a shortcut of its own: no map that is given is overwritten.
        for stage, blocks in enumerate(self.stages):
            x = blocks(x)
            if stage in self.outputs:
                maps.append(x)
        return maps


def _fused_block(block: nn.Module, dtype: torch.dtype) -> InferenceBlock:
    if isinstance(block, BasicBlock | Bottleneck):
        return block.fuse(dtype)
    raise CannotFuse(f"a {type(block).__name__} among the residual blocks")
