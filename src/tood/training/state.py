"""What a run knows of itself: its position, its recent figures, its result."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

# A lower AP is shown as 0.000.
LOWEST_AP = 0.0005


class Scores(Protocol):
    """What an evaluation gives, each in 0..1."""

    @property
    def ap(self) -> float:
        """AP over IoU 0.50:0.95."""

    @property
    def ap50(self) -> float:
        """AP at IoU 0.50."""

    @property
    def ap75(self) -> float:
        """AP at IoU 0.75."""


@dataclass(frozen=True)
class TrainResult:
    """A run that ended.

    Attributes:
        out: its folder.
        best: weights of the highest AP (the last ones where nothing was evaluated), None if interrupted before any.
        last: weights at the end.
        ap, ap50, ap75: of the last evaluation, 0..1; None without one.
        best_ap: of `best`: the highest, or the last where validation images may choose none (`Validation.selects`).
        epochs, steps, seconds: how far the run went.
        interrupted_by: number of the signal that stopped it early, None at its proper end.
    """

    out: Path
    best: Path | None
    last: Path
    ap: float | None
    ap50: float | None
    ap75: float | None
    best_ap: float | None
    epochs: float
    steps: int
    seconds: float
    interrupted_by: int | None


@dataclass
class Position:
    """Where a run stands: with the weights and random states, all that resuming needs.

    Attributes:
        epoch: completed epochs.
        batch: batches taken of the epoch under way.
        epoch_share: part of the run, 0 to 1, that was completed when that epoch began.
        plateau: (step, seconds) at which AP had not risen for so many evaluations (the third number) and the run began
            to cool down, None before that.
        step: completed optimiser steps.
        evaluated_step: the step of the last evaluation.
        ap, ap50, ap75: of the last evaluation.
        best_ap: of `best.safetensors`.
        highest_ap, evaluations_since_rise: the highest so far, and how many evaluations have not surpassed it since.
        evaluations, evaluation_seconds: how many there were, and the time spent on them.
        skipped: steps in a row that were passed over because their numbers were not finite.
    """

    epoch: int = 0
    batch: int = 0
    step: int = 0
    evaluated_step: int = -1
    ap: float | None = None
    ap50: float | None = None
    ap75: float | None = None
    best_ap: float | None = None
    highest_ap: float | None = None
    evaluations_since_rise: int = 0
    evaluations: int = 0
    evaluation_seconds: float = 0.0
    skipped: int = 0
    epoch_share: float = 0.0
    plateau: tuple[int, float, int] | None = None

    @property
    def has_risen(self) -> bool:
        """Whether AP has ever been above what is shown as 0.000."""
        return self.highest_ap is not None and self.highest_ap >= LOWEST_AP

    def patience_is_over(self, patience: int | None) -> bool:
        """Whether so many evaluations have brought no higher AP; one that has never risen stands on no plateau yet."""
        if self.plateau is not None:
            return True
        return patience is not None and self.has_risen and self.evaluations_since_rise >= patience


def result_of(
    position: Position, out: Path, best: Path, epochs: float, seconds: float, interrupted_by: int
) -> TrainResult:
    """The result of a run that stands at `position`; `interrupted_by` is 0 at its proper end."""
    return TrainResult(
        out=out,
        best=best if best.is_file() else None,
        last=out / "last.safetensors",
        ap=position.ap,
        ap50=position.ap50,
        ap75=position.ap75,
        best_ap=position.best_ap,
        epochs=epochs,
        steps=position.step,
        seconds=seconds,
        interrupted_by=interrupted_by or None,
    )


@dataclass
class Positives:
    """Whether any object got a positive sample, by the losses that are read anyway.

    Attributes:
        any: whether one did: else what boxes lose is 0 in each step, to the last bit.
        whole: whether the epoch under way was seen from its start.
        steps: of it that were seen.
        told: whether that there were none was said.
    """

    any: bool = False
    whole: bool = False
    steps: int = 0
    told: bool = False

    def begin(self, whole: bool) -> None:
        """An epoch, or what is left of it."""
        self.whole, self.steps = whole, 0

    def add(self, losses: Mapping[str, float]) -> None:
        """A step's losses, of which every criterion has "box"."""
        self.steps += 1
        self.any |= losses["box"] != 0

    def complaint(self, epoch: int, size: int) -> str:
        """What to say at an epoch's end, once; empty for nothing.

        Args:
            epoch: its number, from 1.
            size: short side of the input, in pixels.
        """
        if self.told or self.any or not self.whole or not self.steps:
            return ""
        self.told = True
        return (
            f"no object in epoch {epoch} got a positive sample, so that nothing was learned of any: most often they "
            f"are too small in this input; take a larger one (--size, now {size}), or cut the pictures into tiles"
        )


@dataclass
class Window:
    """Sums since the last row of the log; `losses` by name."""

    started: float = field(default_factory=time.monotonic)
    images: int = 0
    steps: int = 0
    losses: dict[str, float] = field(default_factory=dict)

    def add(self, losses: Mapping[str, float], images: int) -> None:
        """A step's losses and the number of its images."""
        self.steps += 1
        self.images += images
        for name, value in losses.items():
            self.losses[name] = self.losses.get(name, 0.0) + value

    def state_dict(self) -> dict[str, Any]:
        """For a checkpoint: a run that goes on adds to the same sums."""
        seconds = time.monotonic() - self.started
        return {"seconds": seconds, "images": self.images, "steps": self.steps, "losses": dict(self.losses)}

    @staticmethod
    def from_state(state: Mapping[str, Any]) -> Window:
        """The window that `state_dict` was taken of."""
        started = time.monotonic() - state["seconds"]
        return Window(started, state["images"], state["steps"], dict(state["losses"]))

    @property
    def mean_losses(self) -> dict[str, float]:
        """By name, over the steps so far."""
        return {name: total / self.steps for name, total in self.losses.items()}

    @property
    def images_per_second(self) -> float:
        """Speed, loading included."""
        return self.images / max(time.monotonic() - self.started, 1e-9)
