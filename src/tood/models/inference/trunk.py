"""Backbone and pyramid of a network that no longer learns: BatchNorms folded, sums and ReLUs within convolutions."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tood.models.backbones.resnet import BasicBlock, Bottleneck, ResNet
from tood.models.inference.convolution import folded
from tood.models.necks import FPN


class InferenceBlock(nn.Module):
    """A residual block; its output lies in the memory of what it was added to."""

    def __init__(self, block: BasicBlock | Bottleneck, dtype: torch.dtype) -> None:
        super().__init__()
        pairs = [(block.conv1, block.bn1), (block.conv2, block.bn2)]
        if isinstance(block, Bottleneck):
            pairs.append((block.conv3, block.bn3))
        *others, (last, last_norm) = pairs
        self.body = nn.Sequential(*(folded(conv, norm, True, dtype) for conv, norm in others))
        self.last = folded(last, last_norm, True, dtype)
        self.shortcut: nn.Module | None = None
        if block.downsample is not None:
            conv, norm = block.downsample
            assert isinstance(conv, nn.Conv2d)
            assert isinstance(norm, nn.BatchNorm2d)
            self.shortcut = folded(conv, norm, False, dtype)

    def forward(self, x: Tensor) -> Tensor:
        """[B, inputs, H, W], overwritten where there is no shortcut -> [B, outputs, h, w]."""
        out = self.body(x)
        return self.last(out, x if self.shortcut is None else self.shortcut(x))  # type: ignore[no-any-return]


class InferenceResNet(nn.Module):
    """`ResNet` without gradient."""

    def __init__(self, backbone: ResNet, dtype: torch.dtype) -> None:
        super().__init__()
        self.dtype = dtype
        self.stem = folded(backbone.conv1, backbone.bn1, True, dtype)
        self.maxpool = backbone.maxpool
        self.stages = nn.ModuleList(
            nn.Sequential(*(InferenceBlock(block, dtype) for block in getattr(backbone, name)))
            for name in backbone.stage_names
        )
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


class InferenceFPN(nn.Module):
    """`FPN` without gradient."""

    def __init__(self, neck: FPN, dtype: torch.dtype) -> None:
        super().__init__()
        self.laterals = _convolutions(neck.laterals, dtype)
        self.outputs = _convolutions(neck.outputs, dtype)
        self.extras = _convolutions(neck.extras, dtype)

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """The backbone's maps, fine to coarse -> `levels` maps of `width` channels."""
        merged = [self.laterals[-1](maps[-1])]
        for lateral, features in zip(reversed(self.laterals[:-1]), reversed(maps[:-1]), strict=True):
            coarse = F.interpolate(merged[0], size=features.shape[2:], mode="nearest")
            merged.insert(0, lateral(features, coarse))
        pyramid = [output(features) for output, features in zip(self.outputs, merged, strict=True)]
        for extra in self.extras:
            pyramid.append(extra(pyramid[-1]))
        return pyramid


def _convolutions(layers: nn.ModuleList, dtype: torch.dtype) -> nn.ModuleList:
    convolutions = []
    for layer in layers:
        assert isinstance(layer, nn.Conv2d)
        convolutions.append(folded(layer, None, False, dtype))
    return nn.ModuleList(convolutions)
