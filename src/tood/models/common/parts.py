"""What backbone, neck and head tell each other before they are built: channels, strides, and what does not fit."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any, ClassVar, Protocol

from torch import nn

from tood.errors import SettingError, ToodError
from tood.input import InputConfig
from tood.models.common.sizes import MOST_CHANNELS


class BackbonePart(Protocol):
    """What a backbone that goes with any neck answers beside what every backbone does (`BackboneConfig`)."""

    __dataclass_fields__: ClassVar[dict[str, Any]]

    @property
    def kind(self) -> str:
        """What configurations call it."""

    @property
    def outputs(self) -> tuple[int, ...]:
        """Stages whose maps it gives."""

    @property
    def stages(self) -> int:
        """Stages that maps may be taken of."""

    @property
    def divisor(self) -> int:
        """What the sides of its images are multiples of."""

    @property
    def channels(self) -> tuple[int, ...]:
        """Channels of each output map."""

    @property
    def strides(self) -> tuple[int, ...]:
        """Input pixels a cell of each output map."""

    def build(self) -> nn.Module:
        """The backbone, with freshly initialised weights."""


class NeckPart(Protocol):
    """What a neck that goes with any backbone answers for itself."""

    __dataclass_fields__: ClassVar[dict[str, Any]]

    @property
    def kind(self) -> str:
        """What configurations call it."""

    def channels(self, maps: Sequence[int]) -> tuple[int, ...]:
        """Channels of each level, of those of the backbone's maps."""

    def strides(self, maps: Sequence[int]) -> tuple[int, ...]:
        """Input pixels a cell of each level, of those of the backbone's maps, fine to coarse."""

    def divisor(self, strides: Sequence[int]) -> int:
        """What the sides of images are multiples of, of the backbone's strides."""

    @property
    def one_width(self) -> str:
        """How all levels get the same number of channels, in words."""

    def build(self, channels: Sequence[int]) -> nn.Module:
        """The neck on maps of so many channels, with freshly initialised weights."""


class PartsConfig(Protocol):
    """A whole network's configuration as its parts see it."""

    @property
    def family(self) -> str:
        """Name of the head's family."""

    @property
    def backbone(self) -> BackbonePart:
        """Shape of the backbone."""

    @property
    def neck(self) -> NeckPart:
        """Shape of the neck."""

    @property
    def input(self) -> InputConfig:
        """Size and colours of the input image."""


def build_trunk(config: PartsConfig) -> tuple[nn.Module, nn.Module]:
    """The backbone and the neck, with freshly initialised weights.

    Raises:
        ToodError: if they do not go together; the message names both and the settings to change.
    """
    backbone, neck = config.backbone, config.neck
    check_outputs(backbone.kind, backbone.outputs, backbone.stages)
    if max(backbone.channels) > MOST_CHANNELS:
        raise ToodError(
            f"model.backbone, a {backbone.kind}, gives maps of {list(backbone.channels)} channels: make it narrower, "
            f"{MOST_CHANNELS:,} are the most"
        )
    strides = backbone.strides
    if any(coarse != 2 * fine for fine, coarse in pairwise(strides)):
        raise ToodError(
            f"model.backbone.outputs {list(backbone.outputs)} of the {backbone.kind} gives maps of strides "
            f"{list(strides)}, and model.neck, a {neck.kind}, joins maps each of twice the stride of the one before: "
            "choose other stages"
        )
    needed = math.lcm(backbone.divisor, neck.divisor(strides))
    if config.input.divisor % needed:
        raise ToodError(
            f"model.input.divisor is {config.input.divisor}, and model.backbone, a {backbone.kind}, with model.neck, a "
            f"{neck.kind}, takes images whose sides are multiples of {needed}: set it to one"
        )
    built = backbone.build()
    return built, neck.build(backbone.channels)


def level_widths(config: PartsConfig) -> tuple[int, ...]:
    """Channels of each level that the head sees."""
    return config.neck.channels(config.backbone.channels)


def one_width(config: PartsConfig) -> int:
    """Channels of all levels alike, for a head that has the same weights for all of them.

    Raises:
        ToodError: if the neck gives its levels different numbers of channels.
    """
    widths = level_widths(config)
    if len(set(widths)) > 1:
        raise ToodError(
            f"model.neck, a {config.neck.kind}, gives its levels {list(widths)} channels, and model.head, that of "
            f"{config.family}, has the same weights for all levels: {config.neck.one_width}"
        )
    return widths[0]


def check_outputs(kind: str, outputs: Sequence[int], stages: int) -> None:
    """Refuses maps of stages that a backbone has not.

    Args:
        kind: what configurations call the backbone.
        outputs: stages whose maps it is to give.
        stages: how many it has.

    Raises:
        SettingError: if they are none, not in growing order, or not among its stages.
    """
    wanted = list(outputs)
    if not wanted or wanted != sorted(set(wanted)) or not 0 <= wanted[0] <= wanted[-1] < stages:
        raise SettingError(
            "model.backbone.outputs",
            f"is {wanted}: this {kind} has the stages 0 to {stages - 1}, give some in growing order",
        )
