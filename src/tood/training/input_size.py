"""Whether a run's input is large enough for the objects it is to learn, and which one would be."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from tood.data import DetectionDataset
from tood.data.training_boxes import ObjectSizes, TrainingBoxes
from tood.data.transforms import AugmentConfig, CanvasStep, FitStep, StretchStep
from tood.errors import ToodError
from tood.input import InputConfig
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
    sizes, input = ObjectSizes.of(dataset, run.data.smallest_side), run.model.input
    found = sizes.in_training(run.augment, input)
    advice = ""
    if found.objects > found.left_out and found.kept < _ENOUGH:
        at, name = _sized(run)
        # A larger input is large enough for all that this one is large enough for.
        doubtful = sizes.only(sizes.too_small(run.augment, input) > 0)
        most = (1 - _ENOUGH) * (found.objects - found.left_out)

        def keeps(side: int) -> bool:
            return float(doubtful.too_small(*at(side)).sum()) <= most

        side = _smallest(keeps, input.divisor)
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


def _sized(run: RunConfig) -> tuple[Callable[[int], tuple[AugmentConfig, InputConfig]], Callable[[int], str]]:
    """The run's transforms and input at another size, and the option that asks for it."""
    augment, input, recipe = run.augment, run.model.input, RECIPES.get(run.recipe)
    if recipe is not None and _sizing(recipe(run).augment) == _sizing(augment):

        def as_recipe(side: int) -> tuple[AugmentConfig, InputConfig]:
            model = with_size(run.model, side)
            sizing = _sizing(recipe(replace(run, model=model)).augment)
            return augment if sizing is None else augment.with_step(sizing), model.input

        return as_recipe, lambda side: f"--size {side}"
    canvas = augment.canvas
    if canvas is not None:
        also = " with augment.canvases=[]" if canvas.sides else ""
        return (
            lambda side: (augment.with_step(replace(canvas, side=side, sides=())), input),
            lambda side: f"--set augment.canvas={side}{also}",
        )
    stretch = augment.find(StretchStep)
    if stretch is not None:
        return (
            lambda side: (augment.with_step(replace(stretch, side=side, sides=())), input),
            lambda side: f"an augment step of kind stretch with side {side} alone",
        )
    short, long = (augment.find(FitStep) or FitStep()).size or (input.short, input.long)
    return (
        lambda side: (augment.with_step(FitStep((side, round(side * long / short)))), input),
        lambda side: f"--set augment.size=[{side},{round(side * long / short)}]",
    )


def _sizing(augment: AugmentConfig) -> FitStep | CanvasStep | StretchStep | None:
    return augment.canvas or augment.find(StretchStep) or augment.find(FitStep)


def _smallest(keeps: Callable[[int], bool], divisor: int) -> int | None:
    """The smallest side, a multiple of the divisor, that keeps enough; None if the largest does not."""
    low, high = 0, _LARGEST // divisor
    if not keeps(high * divisor):
        return None
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if keeps(middle * divisor) else (middle, high)
    return high * divisor
