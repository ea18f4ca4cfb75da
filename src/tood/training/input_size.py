"""Whether a run's input is large enough for the objects it is to learn, and which one would be."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from tood.data import DetectionDataset
from tood.data.training_boxes import ObjectSizes, TrainingBoxes
from tood.data.transforms import AugmentConfig
from tood.errors import ToodError
from tood.training.config import RunConfig
from tood.training.recipes import RECIPES, with_size

# An input keeps a dataset's objects if it is too small for at most one in so many, on average.
_ENOUGH = 0.99
# A larger short side is no advice.
_LARGEST = 4096


@dataclass(frozen=True)
class BoxReport:
    """What of a split's objects reaches the training of a run.

    Attributes:
        where: root and split, for messages.
        found: what is left out.
        crowds_are: what the split's crowds are called.
        smallest_side: the run's limit on the sides of its pictures.
        advice: what would keep nearly all objects; empty where they are kept.
    """

    where: str
    found: TrainingBoxes
    crowds_are: str
    smallest_side: int
    advice: str

    @property
    def told(self) -> str:
        """What is left out and why, in one sentence; empty where that is next to nothing."""
        found = self.found
        if not found.reachable:
            return self._why_none
        parts = []
        if found.crowds:
            parts.append(f"{found.crowds:,} {self.crowds_are} (not learned)")
        if found.left_out:
            parts.append(f"{found.left_out:,} in pictures with a side under {self.smallest_side} pixels (left out)")
        if found.kept < _ENOUGH:
            always = f", {found.always_small:,} of them at every scale" if found.always_small else ""
            parts.append(
                f"{found.mean_small:,.0f} on average under {found.limit:g} pixels of this input (left out{always}; "
                f"{self.advice})"
            )
        return f"of {found.objects + found.crowds:,} boxes: {', '.join(parts)}" if parts else ""

    def require_any(self) -> None:
        """Raises a ToodError where no object at all would reach the training."""
        if not self.found.reachable:
            raise ToodError(f"{self.where}: {self._why_none}")

    @property
    def _why_none(self) -> str:
        found = self.found
        if not found.objects and found.crowds:
            return f"there is nothing to learn or to measure: all {found.crowds:,} boxes are {self.crowds_are}"
        if not found.objects:
            return "there is no box to learn from"
        if found.left_out == found.objects:
            return (
                f"there is nothing to learn: all {found.objects:,} boxes lie in pictures with a side under "
                f"{self.smallest_side} pixels, which are left out; data.smallest_side=1 keeps them"
            )
        return (
            f"there is nothing to learn: each of the {found.objects - found.left_out:,} boxes is under "
            f"{found.limit:g} pixels of this input; {self.advice}"
        )


def box_report(dataset: DetectionDataset, run: RunConfig) -> BoxReport:
    """Counts what of a split would reach the training of a run; no picture is opened."""
    sizes, divisor = ObjectSizes.of(dataset, run.data.smallest_side), run.model.input.divisor
    found = sizes.in_training(run.augment, divisor)
    advice = ""
    if found.objects > found.left_out and found.kept < _ENOUGH:
        at, name = _sized(run)

        def keeps(side: int) -> bool:
            return sizes.in_training(at(side), divisor).kept >= _ENOUGH

        side = _smallest(keeps, divisor)
        advice = (
            f"no input of up to {_LARGEST} pixels keeps 99 % of them: cut the pictures into tiles"
            if side is None
            else f"{name(side)} keeps 99 % of them"
        )
    return BoxReport(
        where=f"{dataset.root}, split '{dataset.split}'",
        found=found,
        crowds_are="difficult" if dataset.format == "voc" else "crowds",
        smallest_side=run.data.smallest_side,
        advice=advice,
    )


def _sized(run: RunConfig) -> tuple[Callable[[int], AugmentConfig], Callable[[int], str]]:
    """The run's transforms at another size, and the option that asks for it."""
    augment, recipe = run.augment, RECIPES.get(run.recipe)
    if recipe is not None and _geometry(recipe(run).augment) == _geometry(augment):

        def as_recipe(side: int) -> AugmentConfig:
            sized = recipe(replace(run, model=with_size(run.model, side))).augment
            return replace(
                augment, size=sized.size, shortest=sized.shortest, canvas=sized.canvas, canvases=sized.canvases
            )

        return as_recipe, lambda side: f"--size {side}"
    if augment.canvas is not None:
        also = " with augment.canvases=[]" if augment.canvases else ""
        return (
            lambda side: replace(augment, canvas=side, canvases=()),
            lambda side: f"--set augment.canvas={side}{also}",
        )
    ratio = augment.size[1] / augment.size[0]
    also = " with augment.shortest=null" if augment.shortest is not None else ""
    return (
        lambda side: replace(augment, size=(side, round(side * ratio)), shortest=None),
        lambda side: f"--set augment.size=[{side},{round(side * ratio)}]{also}",
    )


def _geometry(augment: AugmentConfig) -> tuple[object, ...]:
    return augment.size, augment.shortest, augment.canvas, augment.canvases


def _smallest(keeps: Callable[[int], bool], divisor: int) -> int | None:
    """The smallest side, a multiple of the divisor, that keeps enough; None if the largest does not."""
    low, high = 0, _LARGEST // divisor
    if not keeps(high * divisor):
        return None
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if keeps(middle * divisor) else (middle, high)
    return high * divisor
