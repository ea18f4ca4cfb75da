"""The run that somebody means who leaves things open: by which recipe, and what follows from the settings given."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from tood.configuration import apply_overrides, load, setting_keys
from tood.data import DataConfig
from tood.training.config import RunConfig
from tood.training.datasets import Datasets, open_datasets
from tood.training.default_model import ModelChoice, default_model
from tood.training.folder import CONFIG
from tood.training.recipes import DETECTOR_RATE, for_a_detector
from tood.training.start import IMAGENET, SCRATCH, is_detector, started
from tood.zoo import Recipe, named_model

# A detector is fine-tuned on fewer training pictures than these by the recipe for few, on more by its model's own.
FEW_PICTURES = 5_000

FOR_FEW: Recipe = "transfer"
# Models of these recipes are meant for few pictures in the first place.
_OWN_FOR_FEW: tuple[Recipe, ...] = ("small", "transfer")
# With one of these given, frozen stages are what somebody wants.
_FROZEN = frozenset({"model", "model.backbone", "model.backbone.frozen_stages"})


@dataclass(frozen=True)
class RunChoice:
    """A run of which something was chosen for somebody.

    Attributes:
        run: that it is.
        why: a sentence for each thing that was chosen, to be told.
        datasets: what it learns from, where that had to be read for the choice; None where it was not.
    """

    run: RunConfig
    why: tuple[str, ...] = ()
    datasets: Datasets | None = None


def choose_run(
    model: str | None = None,
    start_from: str | None = None,
    size: int | None = None,
    recipe: str | None = None,
    data: DataConfig | None = None,
    judge: Callable[[RunConfig], object] | None = None,
) -> RunChoice:
    """The run that `tood train` does.

    Args:
        model: a name of `named_models()`; None takes the one that the weights are of, or the usual one.
        start_from: as `RunConfig.start_from` has it; a detector's weights are fetched if need be.
        size, recipe: as for `run_config`. Without a recipe few pictures to fine-tune a detector on decide for the one
            for few.
        data: what is learned from: its objects decide on the model, and its pictures on the recipe; None where that is
            not known and decides nothing.
        judge: is given the run as far as it is known before the data are read, which may take long, so that it can
            refuse it.

    Raises:
        ToodError: if there is no such model, recipe, size or file of weights, or as `open_datasets`.
    """
    datasets, objects = None, None
    if model is None and data is not None and start_from in (None, IMAGENET):
        datasets = _judged_and_read(default_model(start_from).run(size, recipe), judge, data)
        objects = datasets.training.object_count
    choice = default_model(start_from, objects) if model is None else ModelChoice(model, "", model)
    why = [] if model is not None else [f"model: {choice.name} was chosen, as {choice.why}; --model NAME takes another"]
    run = choice.run(size, recipe)
    own = named_model(choice.card).recipe
    if recipe in (None, FOR_FEW) and own not in _OWN_FOR_FEW and is_detector(start_from):
        if recipe is None and data is not None:
            datasets = _judged_and_read(run, judge, data)
            recipe, told = _recipe_for(len(datasets.training.images), own)
            run = choice.run(size, recipe)
            why.append(told)
        if recipe == FOR_FEW:
            rate, run = run.optimizer.lr, for_a_detector(run)
            why.append(
                f"rate: unless --lr gives one, {DETECTOR_RATE:g} instead of the {rate:g} that {FOR_FEW} has for heads "
                "drawn at random, as a detector's weights need less change"
            )
    return RunChoice(replace(run, start_from=start_from or run.start_from), tuple(why), datasets)


def with_settings(run: RunConfig, settings: Iterable[str]) -> RunConfig:
    """The run with keys of its configuration set as `--set` does, which are the last word on what is frozen.

    A number of objects changes no frozen stages that are given here (`thaw_from`), nor does a start from scratch, which
    lets all else learn.

    Raises:
        ToodError: as `apply_overrides`.
    """
    settings = list(settings)
    given = setting_keys(settings)
    done = apply_overrides(run, settings)
    # Whether it starts from scratch may hang on the settings, as a backbone of another size has no weights.
    begun = started(done)
    if begun.thaw_scratch != done.thaw_scratch:
        done = apply_overrides(run.from_scratch(), settings)
    keep = "thaw_from" not in given and not given.isdisjoint(_FROZEN)
    return replace(done, thaw_from=None) if keep else done


def begun_run(folder: Path) -> RunConfig:
    """The configuration that a run was begun with, from its folder.

    Raises:
        ToodError: if there is none, or it cannot be read.
    """
    run = load(folder / CONFIG, RunConfig)
    # Its network is what it is: files from before `thaw_scratch` do not say so.
    return replace(run, thaw_scratch=run.thaw_scratch and run.start_from != SCRATCH)


def _judged_and_read(run: RunConfig, judge: Callable[[RunConfig], object] | None, data: DataConfig) -> Datasets:
    """What is learned from, which is read only where the run as far as it is known is not refused."""
    if judge is not None:
        judge(run)
    return open_datasets(data)


def _recipe_for(pictures: int, own: Recipe) -> tuple[Recipe, str]:
    """The recipe to fine-tune a detector by on so many, and why."""
    if pictures < FEW_PICTURES:
        return FOR_FEW, (
            f"recipe: {FOR_FEW} was chosen, as the weights are a detector's and {pictures:,} training pictures are few "
            f"(fewer than {FEW_PICTURES:,}); --recipe {own} takes the model's own"
        )
    return own, (
        f"recipe: {own} was chosen, the model's own, as {pictures:,} training pictures are not few "
        f"({FEW_PICTURES:,} or more); --recipe {FOR_FEW} takes the one for few"
    )
