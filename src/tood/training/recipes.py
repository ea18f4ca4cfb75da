"""Recipes: what a run does besides its model, as functions from a `RunConfig` to one that follows the recipe."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from difflib import get_close_matches
from types import MappingProxyType
from typing import TypeVar

from tood.alignment import TaskAlignedCriterionConfig
from tood.data.transforms import AugmentConfig, CanvasStep, FitStep, FlipStep, PhotometricStep
from tood.errors import ToodError
from tood.models import AnyCriterionConfig, AnyModelConfig
from tood.training.config import PUBLISHED_BATCH, RunConfig
from tood.training.ema import EMAConfig
from tood.training.optim import AdamWConfig, SGDConfig
from tood.training.schedule import CosineScheduleConfig, StepScheduleConfig
from tood.zoo import named_model

ModelT = TypeVar("ModelT", bound=AnyModelConfig)

# Side of the small recipe's canvas over that of the model's input.
CANVAS_SHARE = 6 / 7


def recipe_1x(run: RunConfig) -> RunConfig:
    """The paper's "1x": 12 epochs of SGD, 16 images a step, the rate divided by 10 after epochs 8 and 11."""
    return replace(
        run,
        recipe="1x",
        start_from=None,  # ImageNet's weights, where they are published for the backbone
        augment=AugmentConfig((FitStep(), FlipStep(0.5))),
        optimizer=SGDConfig(lr=0.01, lr_batch=PUBLISHED_BATCH, momentum=0.9, weight_decay=1e-4),
        schedule=StepScheduleConfig(milestones=(8, 11), of_epochs=12, warm_up_steps=500, warm_up_ratio=0.001),
        ema=EMAConfig(enabled=False),
        # As MMDetection's `filter_empty_gt` and its least size of an image do.
        data=replace(run.data, keep_empty=False, smallest_side=32),
        epochs=12,
        batch_size=None,
        clip_gradient=None,
    )


def recipe_2x(run: RunConfig) -> RunConfig:
    """The paper's "2x": 24 epochs, steps after 16 and 22, the short side drawn from 480..800 (in that proportion)."""
    size = run.model.input
    return replace(
        recipe_1x(run),
        recipe="2x",
        augment=AugmentConfig((FitStep(shortest=max(round(size.short * 0.6), 1)), FlipStep(0.5))),
        schedule=StepScheduleConfig(milestones=(16, 22), of_epochs=24, warm_up_steps=500, warm_up_ratio=0.001),
        epochs=24,
    )


def recipe_small(run: RunConfig) -> RunConfig:
    """For small models from scratch: AdamW, one cosine, averaged weights, images scaled at random on a canvas.

    The canvas is smaller than the input that the model later sees: crops of a canvas show objects larger than whole
    images do, and a larger input makes up for it (Touvron et al. 2019, "FixRes"), while training stays cheap.
    """
    size = run.model.input
    canvas = max(1, round(size.long * CANVAS_SHARE / size.divisor)) * size.divisor
    return replace(
        run,
        recipe="small",
        start_from="scratch",
        augment=AugmentConfig((CanvasStep(canvas, scale=(0.7, 1.5)), FlipStep(0.5), PhotometricStep(0.5))),
        # Short memories: with Adam's usual (0.9, 0.999) the classes are told apart half again as late.
        optimizer=AdamWConfig(lr=2e-3, betas=(0.8, 0.95), weight_decay=0.05),
        schedule=CosineScheduleConfig(final_ratio=0.01, warm_up_steps=100),
        ema=EMAConfig(enabled=True, decay=0.9995),
        epochs=100,
        batch_size=8,
        accumulation=1,
        clip_gradient=10.0,
        criterion=_by_share(run.criterion),
    )


def recipe_transfer(run: RunConfig) -> RunConfig:
    """For few pictures and a backbone that knows ImageNet: its first stages rest, what is nearer the head learns more.

    Objects are shown small and large, alone and in mosaics, until the last part of the run.
    """
    size = run.model.input
    canvas = max(1, round(size.long * CANVAS_SHARE / size.divisor)) * size.divisor
    return replace(
        recipe_small(run),
        recipe="transfer",
        start_from=None,
        augment=AugmentConfig((CanvasStep(canvas, scale=(0.6, 1.6)), FlipStep(0.5), PhotometricStep(0.7))),
        optimizer=AdamWConfig(lr=1e-3, betas=(0.9, 0.98), weight_decay=0.05, layer_decay=0.8),
        ema=EMAConfig(enabled=True, decay=0.998),
    )


def _by_share(criterion: AnyCriterionConfig) -> AnyCriterionConfig:
    """A criterion whose warm-up is a share of the run, whatever its epochs: they are many and short."""
    if isinstance(criterion, TaskAlignedCriterionConfig):
        return replace(criterion, warm_up_epochs=None, warm_up_share=1 / 3)
    return criterion


RECIPES: Mapping[str, Callable[[RunConfig], RunConfig]] = MappingProxyType(
    {"1x": recipe_1x, "2x": recipe_2x, "small": recipe_small, "transfer": recipe_transfer}
)


def with_size(config: ModelT, size: int) -> ModelT:
    """The model with another short side of its input, in pixels; the long side keeps its proportion."""
    long = round(size * config.input.long / config.input.short)
    return replace(config, input=replace(config.input, short=size, long=long))


def run_config(model: str, size: int | None = None, recipe: str | None = None) -> RunConfig:
    """The run that a named model is meant for.

    Args:
        model: a name of `named_models()`.
        size: short side of the input in pixels instead of the model's own; the long side keeps its proportion.
        recipe: "1x", "2x", "small" or "transfer" instead of the model's own.

    Raises:
        ToodError: if there is no such model or recipe, or the size is not positive.
    """
    named = named_model(model)
    config = named.config()
    if size is not None:
        if size < config.input.divisor:
            raise ToodError(f"size is {size}: expected {config.input.divisor} pixels or more")
        config = with_size(config, size)
    name = recipe or named.recipe
    if name not in RECIPES:
        close = get_close_matches(name, RECIPES, n=1)
        hint = f"did you mean '{close[0]}'?" if close else f"there are {', '.join(RECIPES)}"
        raise ToodError(f"there is no recipe '{name}': {hint}")
    return RECIPES[name](RunConfig(name=model, model=config, criterion=named.criterion()))
