"""Exponential moving average of the weights: what is evaluated and saved."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar

import torch
from torch import Tensor, nn

from tood.errors import SettingError

# In the state of an average that starts from zeros, beside the tensors: how many updates it has had.
_UPDATES = "updates"

ModuleT = TypeVar("ModuleT", bound=nn.Module)


@dataclass(frozen=True)
class EMAConfig:
    """Averaging of weights.

    Attributes:
        enabled: whether the average is kept; else the weights themselves are evaluated and saved.
        decay: share of the average that stays at each step, in the long run.
        ramp: the decay grows towards that as (1 + step) / (ramp + step): the average spans the last steps / ramp, so
            that the random start is forgotten and a short run averages over as large a share of itself as a long one.
        from_zero: whether the average starts from zeros, with the decay of one step earlier, and is divided by
            1 - decay^steps, the decay being the last one, when it is used (PP-YOLOE), instead of from the weights.
    """

    enabled: bool = False
    decay: float = 0.999
    ramp: int = 10
    from_zero: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.decay < 1:
            raise SettingError("ema.decay", f"is {self.decay}: expected a number from 0 up to, but not, 1")
        if self.ramp < 1:
            raise SettingError("ema.ramp", f"is {self.ramp}: expected 1 or more steps")

    def decay_at(self, step: int) -> float:
        """Decay after so many steps, from 1: min(decay, (1 + step) / (ramp + step)), from zeros that of one earlier."""
        step -= self.from_zero
        return min(self.decay, (1 + step) / (self.ramp + step))


class EMA(Generic[ModuleT]):
    """The average of a module's parameters and floating-point buffers; other buffers are copied.

    Attributes:
        module: a copy of the module that holds the average, in evaluation mode.
    """

    def __init__(self, module: ModuleT, config: EMAConfig) -> None:
        self.config = config
        self.module: ModuleT = copy.deepcopy(module).eval().requires_grad_(False)
        # Of an average that starts from zeros: the sum so far, beside the average in `module`, and its updates.
        self._sum: ModuleT | None = None
        if config.from_zero:
            self._sum = copy.deepcopy(self.module)
            self._forget(self._sum)

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
        target = self.module if self._sum is None else self._sum
        for average, value in zip(_tensors(target), _tensors(module), strict=True):
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
        if self._sum is not None:
            self._updates += 1 if skipped is None else (~skipped).to(self._updates)

    @torch.no_grad()
    def averaged(self) -> ModuleT:
        """The module that holds the average now, in evaluation mode; before the first update the weights as they were.

        Later updates may or may not change it.
        """
        if self._sum is None:
            return self.module
        steps = self._updates
        ramped = steps / (self.config.ramp + steps - 1)  # `decay_at` of the last step
        share = 1 - ramped.clamp(max=self.config.decay) ** steps
        for average, value in zip(_tensors(self.module), _tensors(self._sum), strict=True):
            if average.is_floating_point():
                average.copy_(torch.where(steps > 0, value / share, average))
            else:
                average.copy_(value)
        return self.module

    def state_dict(self) -> dict[str, Tensor]:
        """The averaged tensors, by the model's names; of an average that starts from zeros its sum and updates."""
        if self._sum is None:
            return self.module.state_dict()
        return {**self._sum.state_dict(), _UPDATES: self._updates}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Goes on with averages that `state_dict` gave, or begins one with a network's weights."""
        averages = {name: tensor for name, tensor in state.items() if name != _UPDATES}
        if self._sum is None:
            self.module.load_state_dict(averages)
        elif _UPDATES in state:
            self._sum.load_state_dict(averages)
            self._updates.copy_(state[_UPDATES])
        else:
            self.module.load_state_dict(averages)
            self._forget(self._sum)

    def _forget(self, total: nn.Module) -> None:
        """No update so far."""
        tensors = _tensors(total)
        with torch.no_grad():
            for tensor in tensors:
                tensor.zero_()
        # In double precision, and on the device, which is not waited for.
        self._updates = torch.zeros((), dtype=torch.float64, device=tensors[0].device if tensors else None)


def _tensors(module: nn.Module) -> list[Tensor]:
    return [*module.parameters(), *module.buffers()]
