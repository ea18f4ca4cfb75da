"""Recipes: what a run does besides its model, as functions from a `RunConfig` to one that follows the recipe."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from difflib import get_close_matches
from types import MappingProxyType
from typing import TypeVar

from tood.alignment import TaskAlignedCriterionConfig, VarifocalCriterionConfig
from tood.data.transforms import (
    AugmentConfig,
    CanvasStep,
    CropStep,
    DistortStep,
    ExpandStep,
    FitStep,
    FlipStep,
    MixUpStep,
    MosaicStep,
    PhotometricStep,
    StretchStep,
)
from tood.errors import ToodError
from tood.input import InputConfig
from tood.models import AnyCriterionConfig, AnyModelConfig
from tood.training.config import PUBLISHED_BATCH, RunConfig
from tood.training.ema import EMAConfig
from tood.training.optim import AdamWConfig, SGDConfig
from tood.training.schedule import CosineScheduleConfig, StepScheduleConfig, StretchedCosineScheduleConfig
from tood.zoo import Recipe, named_model

ModelT = TypeVar("ModelT", bound=AnyModelConfig)

# Longer side of the small recipe's canvas over that of a picture in prediction.
CANVAS_SHARE = 6 / 7

# The head's rate in `recipe_transfer` where the weights are a detector's.
DETECTOR_RATE = 2e-4


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


def recipe_1_5x(run: RunConfig) -> RunConfig:
    """PAA's "1.5x": as "1x", but 18 epochs, the rate divided by 10 after epochs 12 and 16."""
    return _lengthened(run, "1.5x", 18, (12, 16))


def recipe_2x(run: RunConfig) -> RunConfig:
    """The paper's "2x": 24 epochs, steps after 16 and 22, the short side drawn from 480..800 (in that proportion)."""
    return replace(_lengthened(run, "2x", 24, (16, 22)), augment=_at_scales(run, 0.6))


def recipe_3x(run: RunConfig) -> RunConfig:
    """MMDetection's "3x" of PAA: 36 epochs, steps after 28 and 34, the short side drawn from 640..800."""
    return replace(_lengthened(run, "3x", 36, (28, 34)), augment=_at_scales(run, 0.8))


def _lengthened(run: RunConfig, recipe: Recipe, epochs: int, milestones: tuple[int, ...]) -> RunConfig:
    """The "1x" recipe of another length."""
    return replace(
        recipe_1x(run),
        recipe=recipe,
        schedule=StepScheduleConfig(milestones=milestones, of_epochs=epochs, warm_up_steps=500, warm_up_ratio=0.001),
        epochs=epochs,
    )


def _at_scales(run: RunConfig, least: float) -> AugmentConfig:
    """Short sides from this share of the model's own up, and flips."""
    return AugmentConfig((FitStep(shortest=max(round(run.model.input.short * least), 1)), FlipStep(0.5)))


def recipe_small(run: RunConfig) -> RunConfig:
    """For small models from scratch: AdamW, one cosine, averaged weights, images scaled at random on a canvas.

    The canvas is smaller than the input that the model later sees: crops of a canvas show objects larger than whole
    images do, and a larger input makes up for it (Touvron et al. 2019, "FixRes"), while training stays cheap.
    """
    canvas = _smaller_canvas(run.model.input)
    return replace(
        run,
        recipe="small",
        start_from="scratch",
        augment=AugmentConfig((CanvasStep(canvas, scale=(0.7, 1.5)), FlipStep(0.5), PhotometricStep(0.5))),
        # Short memories: with Adam's usual (0.9, 0.999) the classes are told apart half again as late.
        optimizer=AdamWConfig(lr=2e-3, betas=(0.8, 0.95), weight_decay=0.05),
        schedule=CosineScheduleConfig(final_ratio=0.01, warm_up_steps=100),
        ema=EMAConfig(enabled=True, decay=0.9995),
        epochs=None,
        batch_size=8,
        accumulation=1,
        clip_gradient=10.0,
        criterion=_by_share(run.criterion),
    )


def recipe_yolox(run: RunConfig) -> RunConfig:
    """YOLOX's: 300 epochs of SGD, 64 images a step, mosaics and blended pairs of images until 15 epochs before the end.

    Canvases of several sizes, one for each batch.
    """
    return _yolox(run, "yolox", light=False)


def recipe_yolox_light(run: RunConfig) -> RunConfig:
    """YOLOX's for its networks that see little (Nano, Tiny): milder scales, more sizes and no blended pairs."""
    return _yolox(run, "yolox_light", light=True)


def _yolox(run: RunConfig, name: Recipe, light: bool) -> RunConfig:
    size = run.model.input
    unit, until = size.divisor, 1 - 15 / 300
    smallest, largest = (0.75, 1.55) if light else (0.75, 1.25)
    sides = tuple(unit * i for i in range(round(size.long * smallest / unit), round(size.long * largest / unit) + 1))
    mosaic = MosaicStep(until=until)
    canvas = CanvasStep(size.long, sides, scale=(0.5, 1.5) if light else (0.1, 2.0), min_visible=0.0, until=until)
    steps = (mosaic, canvas, *(() if light else (MixUpStep(until=until),)), FlipStep(0.5), PhotometricStep(0.5))
    return replace(
        run,
        recipe=name,
        start_from="scratch",
        augment=AugmentConfig(steps),
        optimizer=SGDConfig(
            lr=0.01, lr_batch=64, momentum=0.9, nesterov=True, weight_decay=5e-4, decay_norm_and_bias=False
        ),
        # Five epochs of warm-up, whatever their steps.
        schedule=CosineScheduleConfig(
            final_ratio=0.05,
            warm_up_steps=1_000_000,
            warm_up_ratio=0.0,
            warm_up_share=5 / 300,
            final_share=15 / 300,
            warm_up_power=2.0,
        ),
        ema=EMAConfig(enabled=True, decay=0.9998),
        epochs=300,
        batch_size=None,
        clip_gradient=None,
    )


def recipe_ppyoloe(run: RunConfig) -> RunConfig:
    """PP-YOLOE's 300 epochs of SGD, the first 100 assigned by ATSS, images of many sizes, weights averaged from zero.

    A step takes 64 of them, or as many as the model's card says, the rate in proportion.
    """
    return _ppyoloe(run, "ppyoloe", epochs=300, static_epochs=100, rate=0.01)


def recipe_ppyoloe_plus(run: RunConfig) -> RunConfig:
    """PP-YOLOE+'s 80 epochs, the first 30 assigned by ATSS, meant for weights that have learned Objects365."""
    return _ppyoloe(run, "ppyoloe_plus", epochs=80, static_epochs=30, rate=0.001)


def _ppyoloe(run: RunConfig, name: str, epochs: int, static_epochs: int, rate: float) -> RunConfig:
    size = run.model.input
    # 320 to 768 pixels by 32 of the published 640.
    smallest, largest = (max(round(size.long * share / size.divisor), 1) for share in (0.5, 1.2))
    sides = tuple(side * size.divisor for side in range(smallest, largest + 1))
    criterion = run.criterion
    if isinstance(criterion, VarifocalCriterionConfig):
        criterion = replace(criterion, warm_up_epochs=static_epochs, warm_up_share=static_epochs / epochs)
    return replace(
        run,
        recipe=name,
        start_from=None,
        augment=AugmentConfig(
            (DistortStep(), ExpandStep(), CropStep(), FlipStep(0.5), StretchStep(size.long, sides=sides))
        ),
        optimizer=SGDConfig(lr=rate, lr_batch=64, momentum=0.9, weight_decay=5e-4, decay_norm=False),
        schedule=StretchedCosineScheduleConfig(warm_up_share=5 / epochs, span=1.2),
        ema=EMAConfig(enabled=True, decay=0.9998, ramp=10, from_zero=True),
        data=replace(run.data, keep_empty=False),
        criterion=criterion,
        epochs=epochs,
        batch_size=None,
        clip_gradient=None,
    )


def recipe_transfer(run: RunConfig) -> RunConfig:
    """For few pictures and a backbone that knows ImageNet: its first stages rest, what is nearer the head learns more.

    Pictures are scaled further up and down than in `recipe_small`, to the end of the run.
    """
    canvas = _smaller_canvas(run.model.input)
    return replace(
        recipe_small(run),
        recipe="transfer",
        start_from=None,
        augment=AugmentConfig((CanvasStep(canvas, scale=(0.6, 1.6)), FlipStep(0.5), PhotometricStep(0.7))),
        optimizer=AdamWConfig(lr=1e-3, betas=(0.9, 0.98), weight_decay=0.05, layer_decay=0.8),
        ema=EMAConfig(enabled=True, decay=0.998),
    )


def for_a_detector(run: RunConfig) -> RunConfig:
    """A run of `recipe_transfer` that starts from a detector instead of a backbone.

    What knows boxes already wants a lower rate than a head that is drawn at random.
    """
    return replace(run, optimizer=replace(run.optimizer, lr=DETECTOR_RATE))


def _smaller_canvas(size: InputConfig) -> int:
    """Longer side of a canvas on which a usual picture has fewer pixels than in prediction.

    Not the limit of the input's long side, which such a picture may never reach: it is 800 x 1067 in one of 800 x 1333.
    """
    return max(1, round(size.usual_long * CANVAS_SHARE / size.divisor)) * size.divisor


def _by_share(criterion: AnyCriterionConfig) -> AnyCriterionConfig:
    """A criterion whose warm-up is a share of the run, whatever its epochs: they are many and short."""
    if isinstance(criterion, TaskAlignedCriterionConfig | VarifocalCriterionConfig):
        return replace(criterion, warm_up_epochs=None, warm_up_share=1 / 3)
    return criterion


RECIPES: Mapping[str, Callable[[RunConfig], RunConfig]] = MappingProxyType(
    {
        "1x": recipe_1x,
        "1.5x": recipe_1_5x,
        "2x": recipe_2x,
        "3x": recipe_3x,
        "small": recipe_small,
        "transfer": recipe_transfer,
        "yolox": recipe_yolox,
        "yolox_light": recipe_yolox_light,
        "ppyoloe": recipe_ppyoloe,
        "ppyoloe_plus": recipe_ppyoloe_plus,
    }
)


def with_size(config: ModelT, size: int) -> ModelT:
    """The model with another short side of its input, in pixels; the long side keeps its proportion."""
    long = round(size * config.input.long / config.input.short)
    return replace(config, input=replace(config.input, short=size, long=long))


def run_config(
    model: str, size: int | None = None, recipe: str | None = None, network: AnyModelConfig | None = None
) -> RunConfig:
    """The run that a named model is meant for.

    Args:
        model: a name of `named_models()`.
        size: short side of the input in pixels instead of the model's own; the long side keeps its proportion.
        recipe: a name of `RECIPES` instead of the model's own.
        network: what is trained instead of the named model's own network, by its recipe and criterion.

    Raises:
        ToodError: if there is no such model or recipe, or the size is not positive.
    """
    named = named_model(model)
    config = named.config() if network is None else network
    if size is not None:
        if size < config.input.divisor:
            raise ToodError(f"size is {size}: expected {config.input.divisor} pixels or more")
        config = with_size(config, size)
    name = recipe or named.recipe
    if name not in RECIPES:
        close = get_close_matches(name, RECIPES, n=1)
        hint = f"did you mean '{close[0]}'?" if close else f"there are {', '.join(RECIPES)}"
        raise ToodError(f"there is no recipe '{name}': {hint}")
    run = RECIPES[name](RunConfig(name=model, model=config, criterion=named.criterion()))
    if name != named.recipe:
        return run
    run = replace(run, thaw_from=named.thaw_from)
    published, rate = named.step_images, run.optimizer
    if published is None or rate.lr_batch is None:
        return run
    scaled = replace(rate, lr=rate.lr * published / rate.lr_batch, lr_batch=published)
    return replace(run, optimizer=scaled)
