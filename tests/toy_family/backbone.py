"""Halvings of the image: a convolution each."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from tood.models.backbones.in_stages import WholeLearning


@dataclass(frozen=True)
class ToyBackboneConfig(WholeLearning):
    """Shape of the backbone.

    Attributes:
        widths: channels after each halving of the image; the last two maps are given.
    """

    widths: tuple[int, ...] = (8, 16, 16, 32)

    @property
    def channels(self) -> tuple[int, ...]:
        """Channels of each output map."""
        return self.widths[-2:]

    @property
    def strides(self) -> tuple[int, ...]:
        """Input pixels a cell of each output map."""
        return (2 ** (len(self.widths) - 1), 2 ** len(self.widths))

    @property
    def description(self) -> str:
        """A few words."""
        return f"{len(self.widths)} halvings"


class ToyBackbone(nn.Module):
    """Two feature maps of an image."""

    def __init__(self, config: ToyBackboneConfig) -> None:
        super().__init__()
        inputs = (3, *config.widths)
        self.halvings = nn.ModuleList(
            nn.Sequential(nn.Conv2d(inputs[i], width, 3, 2, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU())
            for i, width in enumerate(config.widths)
        )

    def forward(self, images: Tensor) -> list[Tensor]:
        """[B, 3, H, W] normalised -> [B, C, H / stride, W / stride] each."""
        maps = [images]
        for halving in self.halvings:
            maps.append(halving(maps[-1]))
        return maps[-2:]

    def stages(self) -> list[list[nn.Module]]:
        """Its parts from the image on."""
        return [[halving] for halving in self.halvings]
