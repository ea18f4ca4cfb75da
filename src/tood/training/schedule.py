"""Learning rate over the run, as a plain function of the step and of the completed share of the run.

A run is limited by epochs or by minutes. In the first case its completed share, `progress`, is steps over all steps; in
the second it is time over all time, so the rate depends on the machine's speed, but it always falls the whole way down
by the end. Both grow monotonically, and so does the rate's way through its schedule.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from typing import Literal, TypeAlias

from tood.errors import SettingError


@dataclass(frozen=True)
class StepScheduleConfig:
    """The rate drops at milestones; the defaults are the published 1x's.

    Attributes:
        milestones: epochs after which the rate is multiplied by `gamma`, in a run of `of_epochs`; a shorter, longer or
            timed run drops at the same shares of its length.
        of_epochs: the length that the milestones are meant for.
        warm_up_steps: steps of linear growth at the start.
        warm_up_ratio: share of the peak rate that growth starts from.
        warm_up_share: growth ends at the latest after this share of the run.
    """

    kind: Literal["step"] = "step"
    milestones: tuple[int, ...] = (8, 11)
    of_epochs: int = 12
    gamma: float = 0.1
    warm_up_steps: int = 500
    warm_up_ratio: float = 0.001
    warm_up_share: float = 0.1

    def __post_init__(self) -> None:
        _check_warm_up(self)
        if self.of_epochs < 1 or list(self.milestones) != sorted(self.milestones):
            raise SettingError(
                "schedule.milestones", f"is {list(self.milestones)} of {self.of_epochs} epochs: expected growing epochs"
            )
        if not 0 < self.gamma <= 1:
            raise SettingError("schedule.gamma", f"is {self.gamma}: expected a number above 0, up to 1")


@dataclass(frozen=True)
class CosineScheduleConfig:
    """The rate falls along half a cosine.

    Attributes:
        final_ratio: share of the peak rate left at the end.
        final_share: the rate has fallen to it so much of the run before the end (YOLOX: the last 15 of 300 epochs).
        warm_up_steps, warm_up_ratio, warm_up_share: as in `StepScheduleConfig`.
        warm_up_power: growth goes by this power of its completed part, 1 being a straight line (YOLOX: 2).
    """

    kind: Literal["cosine"] = "cosine"
    final_ratio: float = 0.01
    warm_up_steps: int = 100
    warm_up_ratio: float = 0.001
    warm_up_share: float = 0.1
    final_share: float = 0.0
    warm_up_power: float = 1.0

    def __post_init__(self) -> None:
        _check_warm_up(self)
        if not 0 <= self.final_ratio <= 1:
            raise SettingError("schedule.final_ratio", f"is {self.final_ratio}: expected a number from 0 to 1")
        if not 0 <= self.final_share < 1:
            raise SettingError(
                "schedule.final_share", f"is {self.final_share}: expected a number from 0 up to, but not, 1"
            )
        if not self.warm_up_power > 0:
            raise SettingError("schedule.warm_up_power", f"is {self.warm_up_power}: expected a number above 0")


@dataclass(frozen=True)
class StretchedCosineScheduleConfig:
    """The rate grows from 0 in a straight line, then falls along half a cosine that the run may end before (PP-YOLOE).

    Attributes:
        warm_up_share: share of the run in which it grows.
        span: length of the run up to where half the cosine would end; the published 1.2 leaves 7 % of the peak rate.
    """

    kind: Literal["stretched_cosine"] = "stretched_cosine"
    warm_up_share: float = 5 / 80
    span: float = 1.2

    def __post_init__(self) -> None:
        if not 0 <= self.warm_up_share < 1:
            raise SettingError(
                "schedule.warm_up_share", f"is {self.warm_up_share}: expected a number from 0 up to, but not, 1"
            )
        if not 1 <= self.span < math.inf:
            raise SettingError("schedule.span", f"is {self.span}: expected 1 or more runs")


AnyScheduleConfig: TypeAlias = StepScheduleConfig | CosineScheduleConfig | StretchedCosineScheduleConfig
"""What a run chooses from by `schedule.kind`."""


def _check_warm_up(config: StepScheduleConfig | CosineScheduleConfig) -> None:
    if config.warm_up_steps < 0:
        raise SettingError("schedule.warm_up_steps", f"is {config.warm_up_steps}: expected 0 or more")
    for name in ("warm_up_ratio", "warm_up_share"):
        if not 0 <= getattr(config, name) <= 1:
            raise SettingError(f"schedule.{name}", f"is {getattr(config, name)}: expected a number from 0 to 1")


def rate_factor(config: AnyScheduleConfig, step: int, progress: float) -> float:
    """What the peak rate is multiplied by.

    Args:
        config: the schedule.
        step: completed steps.
        progress: completed share of the run, 0..1.
    """
    if isinstance(config, StretchedCosineScheduleConfig):
        return _stretched_factor(config, progress)
    if isinstance(config, StepScheduleConfig):
        # The small number keeps a milestone on its step despite the division's rounding.
        epoch = progress * config.of_epochs + 1e-6
        decay = config.gamma ** sum(epoch >= milestone for milestone in config.milestones)
    else:
        cosine = (1 + math.cos(math.pi * min(progress / (1 - config.final_share), 1.0))) / 2
        decay = config.final_ratio + (1 - config.final_ratio) * cosine
    return decay * _warm_up_factor(config, step, progress)


def _stretched_factor(config: StretchedCosineScheduleConfig, progress: float) -> float:
    start = config.warm_up_share
    if progress < start - 1e-9:
        return progress / start
    return (1 + math.cos(math.pi * min((progress - start) / (config.span - start), 1.0))) / 2


def _warm_up_factor(config: StepScheduleConfig | CosineScheduleConfig, step: int, progress: float) -> float:
    if config.warm_up_steps == 0 or config.warm_up_share == 0:
        return 1.0
    grown = min(max(step / config.warm_up_steps, progress / config.warm_up_share), 1.0)
    if isinstance(config, CosineScheduleConfig):
        grown **= config.warm_up_power
    return config.warm_up_ratio + (1 - config.warm_up_ratio) * grown


@dataclass(frozen=True)
class Turn:
    """Where a run turned to its end: what was left of it is gone through faster from there on.

    Attributes:
        step: completed steps.
        seconds: spent on the run.
        share: length of the rest over these.
    """

    step: int
    seconds: float
    share: float


class Clock:
    """How far a run has come, in time and as a share of its whole.

    Attributes:
        total_steps: length of a run that is limited by epochs.
        minutes: length of a run that is limited by time, None for the other.
        turn: where what is left of the run began to be gone through faster, None where it did not.
    """

    def __init__(self, total_steps: int, minutes: float | None, seconds: float = 0.0, turn: Turn | None = None) -> None:
        self.total_steps = total_steps
        self.minutes = minutes
        self.turn = turn
        self._before = seconds
        self._started: float | None = None

    def start(self) -> None:
        """Time runs from here, after the `seconds` of an earlier part of the run."""
        self._started = time.monotonic()

    def pause(self) -> None:
        """Time stands still until the next `start`."""
        self._before, self._started = self.seconds, None

    @property
    def seconds(self) -> float:
        """Time spent on the run so far."""
        return self._before + (0.0 if self._started is None else time.monotonic() - self._started)

    def progress(self, step: int) -> float:
        """Completed share of the run after so many steps, 0..1."""
        total = self.total_steps if self.minutes is None else self.minutes * 60
        gone = step if self.minutes is None else self.seconds
        if self.turn is None:
            return min(gone / total, 1.0)
        start = self._turned_at(self.turn)
        if gone <= start:
            return min(gone / total, 1.0)
        if gone >= self._end:
            return 1.0
        # A straight line from where it stood then up to 1.
        return start / total + (1 - start / total) * (gone - start) / (self._end - start)

    def _turned_at(self, turn: Turn) -> float:
        return turn.step if self.minutes is None else turn.seconds

    @property
    def _end(self) -> float:
        """Steps or seconds at which the run ends."""
        total = self.total_steps if self.minutes is None else self.minutes * 60
        if self.turn is None:
            return total
        start = self._turned_at(self.turn)
        left = self.turn.share * start
        return min(start + (left if self.minutes is not None else math.ceil(left)), total)

    def seconds_left(self, step: int) -> float | None:
        """Time to the run's end at the speed so far, None before there is any."""
        if self.minutes is not None:
            return max(self._end - self.seconds, 0.0)
        return None if step == 0 else self.seconds * max(self._end - step, 0.0) / step
