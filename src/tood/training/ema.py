"""Exponential moving average of the weights: what is evaluated and saved."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar

import torch
from torch import Tensor, nn

from tood.errors import SettingError

ModuleT = TypeVar("ModuleT", bound=nn.Module)


@dataclass(frozen=True)
class EMAConfig:
    """Averaging of weights.

    Attributes:
        enabled: whether the average is kept; else the weights themselves are evaluated and saved.
        decay: share of the average that stays at each step, in the long run.
        ramp: the decay grows towards that as (1 + step) / (ramp + step): the average spans the last steps / ramp, so
            that the random start is forgotten and a short run averages over as large a share of itself as a long one.
    """

    enabled: bool = False
    decay: float = 0.999
    ramp: int = 10

    def __post_init__(self) -> None:
        if not 0 <= self.decay < 1:
            raise SettingError("ema.decay", f"is {self.decay}: expected a number from 0 up to, but not, 1")
        if self.ramp < 1:
            raise SettingError("ema.ramp", f"is {self.ramp}: expected 1 or more steps")

    def decay_at(self, step: int) -> float:
        """Decay after so many steps, from 1: min(decay, (1 + step) / (ramp + step))."""
        return min(self.decay, (1 + step) / (self.ramp + step))


class EMA(Generic[ModuleT]):
    """The average of a module's parameters and floating-point buffers; other buffers are copied.

    Attributes:
        module: a copy of the module that holds the average, in evaluation mode.
    """

    def __init__(self, module: ModuleT, config: EMAConfig) -> None:
        self.config = config
        self.module: ModuleT = copy.deepcopy(module).eval().requires_grad_(False)

    @torch.no_grad()
    def update(self, module: nn.Module, step: int, skipped: Tensor | None = None) -> None:
        """Moves the average towards the module.

        Args:
            module: that is averaged, all of it finite.
            step: counted from 1.
            skipped: [] bool on the module's device: leaves the average as it is where true. None moves it.
        """
        newness = 1 - self.config.decay_at(step)
        averages, values = [], []
        for average, value in zip(_tensors(self.module), _tensors(module), strict=True):
            if average.is_floating_point():
                averages.append(average)
                values.append(value)
            else:
                average.copy_(value)
        if skipped is None:
            torch._foreach_lerp_(averages, values, newness)
        else:
            weight = torch.where(skipped, 0.0, newness)
            torch._foreach_lerp_(averages, values, [weight.to(average.dtype) for average in averages])

    def state_dict(self) -> dict[str, Tensor]:
        """The averaged tensors, by the model's names."""
        return self.module.state_dict()

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Goes on with averages that `state_dict` gave."""
        self.module.load_state_dict(state)


def _tensors(module: nn.Module) -> list[Tensor]:
    return [*module.parameters(), *module.buffers()]
