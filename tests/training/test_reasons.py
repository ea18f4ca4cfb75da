"""The two lines of a run's log that say what was chosen and why are true of the run."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tood.configuration import apply_overrides
from tood.models import build_model
from tood.training import RunConfig, run_config
from tood.training.freeze import freeze_parts
from tood.training.optim import build_optimizer
from tood.training.reasons import how_it_learns, what_it_sees


def learning(config: RunConfig) -> str:
    model = build_model(config.model).train()
    return how_it_learns(config, model, config.optimizer.lr)


def seen(name: str, *settings: str) -> str:
    return what_it_sees(apply_overrides(run_config(name), settings))


def test_few_pictures_on_a_backbone_that_knows_imagenet() -> None:
    config = replace(run_config("tood_lite0"), start_from="imagenet")
    said = learning(config)
    assert "the backbone's stem and first 3 of 7 stages rest, since what they know holds" in said
    assert "BatchNorms keep the statistics they have" in said
    assert "weights are averaged over some 500 steps (EMA 0.998)" in said
    optimizer = build_optimizer(config.optimizer, build_model(config.model), config.optimizer.lr)
    lowest = min(group["lr"] for group in optimizer.param_groups)
    assert f"the head learns at 0.001 and each stage before it at 0.8 of that, down to {lowest:.2g}" in said
    assert "\n" not in said


def test_what_learns_from_nothing() -> None:
    said = learning(replace(run_config("tood_tiny"), start_from="scratch"))
    assert "all of it learns; one rate for all that learns, 0.002; BatchNorms learn their statistics" in said


def test_a_frozen_part_and_weights_that_are_not_averaged() -> None:
    config = apply_overrides(run_config("tood_lite0"), ["model.backbone.frozen_stages=7", "ema.enabled=false"])
    said = learning(config)
    assert "the backbone rests, since what it knows holds" in said
    assert "no EMA" in said
    first, stem = (apply_overrides(run_config("tood_lite0"), [f"model.backbone.frozen_stages={n}"]) for n in (1, 0))
    assert "the backbone's stem and first of 7 stages rest," in learning(first)
    assert "the backbone's stem rests," in learning(stem)


@pytest.mark.parametrize("free", [True, False])
def test_nothing_that_was_never_learned_is_a_reason(free: bool) -> None:
    """From scratch, as `--from scratch` has it, and with the frozen stages and statistics that a file kept."""
    config = replace(run_config("tood_lite0"), start_from="scratch")
    said = learning(config.from_scratch() if free else config)
    assert "the head learns at 0.001 and each stage before it at 0.8 of that" in said
    assert ("all of it learns" if free else "stem and first 3 of 7 stages rest;") in said
    assert not any(word in said.split("weights are averaged")[0] for word in ("since", "better"))


def test_what_imagenet_has_not_taught_rests_without_a_reason() -> None:
    config = replace(run_config("tood_lite0"), start_from="imagenet")
    model = build_model(config.model).train()
    freeze_parts(model, ["backbone", "neck"])
    said = how_it_learns(config, model, config.optimizer.lr)
    assert "the backbone and the neck rest; " in said
    assert "what they know" not in said


def test_how_pictures_are_varied_and_until_when() -> None:
    said = seen("tood_lite0", "minutes=7.5")
    assert "scaled 0.6 to 1.6 times, mirrored sideways, colours varied, to the end of the run; no mosaics" in said
    assert "no mosaics; all batches of 384 pixels, fewer than the 448 of prediction" in said
    assert "7.5 minutes, in which the rate falls along a cosine to 1%" in said
    said = seen("tood_lite0", "augment.steps.canvas.until=0.85", "augment.mosaic=0.5", "augment.steps.mosaic.until=0.6")
    assert "50% in mosaics of four until 60% of the run, scaled 0.6 to 1.6 times until 85% of the run" in said
    assert "to the end" not in said
    assert "no mosaics" not in said
    assert "few" not in seen("tood_tiny").replace("fewer", ""), "it would do the same with many"


def test_objects_are_shown_larger_only_where_scaling_does_so() -> None:
    assert "as scaling shows objects larger" in seen("tood_lite0")
    said = seen("tood_lite0", "augment.scale=[0.5,1]")
    assert "all batches of 384 pixels, fewer than the 448 of prediction; " in said


@pytest.mark.parametrize("recipe", ["transfer", "small"])
@pytest.mark.parametrize(
    ("model", "size", "canvas"),
    [
        ("tood_lite0", None, 384),
        ("tood_lite0", 512, 448),
        ("tood_lite0_320", None, 288),
        ("tood_lite2", None, 448),
        ("tood_r50_fpn_1x", None, 928),
        ("tood_r50_fpn_1x", 640, 736),
    ],
)
def test_a_usual_picture_is_smaller_in_training_than_in_prediction(
    model: str, size: int | None, canvas: int, recipe: str
) -> None:
    run = run_config(model, size, recipe)
    step = run.augment.canvas
    assert step is not None
    assert step.side == canvas
    _, width = run.model.input.geometry(600, 800).scaled
    assert 0.8 < step.side / width <= 0.9
    assert f"fewer than the {width} " in what_it_sees(run)


def test_what_a_picture_has_in_prediction_is_told_as_it_is() -> None:
    square, wide = (what_it_sees(run_config(name, recipe="transfer")) for name in ("tood_lite0", "tood_r50_fpn_1x"))
    assert "all batches of 384 pixels, fewer than the 448 of prediction" in square
    assert "all batches of 928 pixels, fewer than the 1067 that a 4:3 picture has in prediction" in wide
    run = apply_overrides(run_config("tood_r50_fpn_1x", 640, "transfer"), ["augment.canvas=928"])
    assert "all batches of 928 pixels; " in what_it_sees(run), "a picture of 853 x 640 is larger so, not smaller"


@pytest.mark.parametrize("name", ["tood_r50_fpn_1x", "yolox_s", "ppyoloe_s"])
def test_other_recipes_are_told_too(name: str) -> None:
    said = seen(name)
    assert f"{run_config(name).epochs} epochs" in said
    sizes = {"yolox_s": "batches of 480 to 800 pixels", "ppyoloe_s": "batches of 320 to 768 pixels"}
    assert sizes.get(name, "mirrored sideways, to the end of the run") in said


def test_until_a_plateau() -> None:
    config = replace(run_config("tood_lite0"), epochs=92, patience=4, cool_down=0.25)
    said = what_it_sees(config)
    assert said.endswith(
        "until 4 evaluations bring no higher AP, at most 92 epochs, then 25% longer, in which the rate falls along a "
        "cosine to 1%"
    )


@pytest.mark.parametrize(
    ("setting", "told"),
    [
        ("[100]", "all batches of 100 pixels, fewer than the 448 of prediction, as scaling shows"),
        ("[320, 416]", "batches of 320 to 416 pixels"),
        ("[448, 448]", "all batches of 448 pixels"),
    ],
)
def test_the_sides_of_batches_are_told_once(setting: str, told: str) -> None:
    assert told in seen("tood_lite0", f"augment.steps.canvas.sides={setting}")
