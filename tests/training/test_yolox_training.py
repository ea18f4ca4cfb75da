"""YOLOX's head and SimOTA crossed with the others, the recipe, and the augmentation that ends before training does."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import torch

from narrow_models import EXAMPLES
from tood import configuration
from tood.alignment import ATSSCriterionConfig, SimOTACriterionConfig, TaskAlignedCriterionConfig
from tood.boxes import iou_pairs
from tood.data.transforms import (
    AugmentConfig,
    CanvasStep,
    Circumstances,
    FitStep,
    FlipStep,
    MixUp,
    MixUpStep,
    MosaicStep,
    Resize,
    Sample,
    build_transforms,
)
from tood.errors import ToodError
from tood.inference import postprocess
from tood.input import InputConfig, prepare
from tood.models import AnyCriterionConfig, AnyModelConfig, build_model
from tood.structures import Targets
from tood.training import CosineScheduleConfig, RunConfig, rate_factor, run_config
from tood.training.optim import SGDConfig
from training.fakes import tiny_run

YOLOX = EXAMPLES["yolox-plain"]
WITHOUT = replace(YOLOX, head=replace(YOLOX.head, objectness=False))  # type: ignore[type-var]
TASK_ALIGNED = TaskAlignedCriterionConfig(warm_up_share=0.0)
PAIRS: dict[str, tuple[AnyModelConfig, AnyCriterionConfig]] = {
    "yolox by simota": (YOLOX, SimOTACriterionConfig()),
    "yolox-pai by simota": (EXAMPLES["yolox-pai"], SimOTACriterionConfig(box_loss="hull")),
    "yolox without objectness by simota": (WITHOUT, SimOTACriterionConfig()),
    "yolox without objectness by task_aligned": (WITHOUT, TASK_ALIGNED),
    "tood by simota": (EXAMPLES["tood-plain"], SimOTACriterionConfig()),
    "atss by simota": (EXAMPLES["atss-plain"], SimOTACriterionConfig()),
}


@pytest.mark.parametrize("pair", PAIRS)
def test_two_pictures_are_learnt_by_heart(pair: str, tmp_path: Path) -> None:
    model_config, criterion = PAIRS[pair]
    replace(tiny_run(tmp_path), model=model_config, criterion=criterion).require_all_trained()
    boxes = torch.tensor([[10.0, 6, 42, 38], [19, 25, 50, 60]])
    images = torch.zeros(2, 3, 64, 64)
    images[0, :, 6:38, 10:42], images[1, :, 25:60, 19:50] = 2, -2
    targets = [Targets(boxes[i, None], torch.tensor([i]), torch.tensor([False])) for i in range(2)]
    torch.manual_seed(0)
    model, measure = build_model(model_config).train(), criterion.build()
    optimizer = torch.optim.AdamW(model.parameters(), 5e-3)
    history = []
    for _ in range(80):
        losses = measure(model(images), targets)
        optimizer.zero_grad()
        losses.total.backward()
        assert all(p.grad is not None for p in model.parameters() if p.requires_grad), "DDP would stop"
        optimizer.step()
        history.append({name: value.item() for name, value in losses.terms.items()})
    first, last = history[0], history[-1]
    assert sum(last.values()) < 0.5 * sum(first.values())
    with torch.no_grad():
        results = postprocess(model(images), None, model_config.postprocess, torch.full((2, 2), 64))
    for i, found in enumerate(results):
        # Plain cross entropy moves the T-Head's scores, roots of products, slowly.
        assert found.labels[0] == i or model_config.family == "tood"
        assert iou_pairs(found.boxes[0], boxes[i]) > 0.6


def test_an_objectness_that_nothing_would_train_is_refused(tmp_path: Path) -> None:
    run = replace(tiny_run(tmp_path), model=YOLOX, criterion=TASK_ALIGNED)
    with pytest.raises(ToodError, match=r"criterion\.kind is 'task_aligned'"):
        run.require_all_trained()
    replace(run, model=WITHOUT).require_all_trained()
    replace(run, criterion=ATSSCriterionConfig()).require_all_trained()


def test_the_recipe_is_the_published_one() -> None:
    run = run_config("yolox_s")
    assert (run.recipe, run.epochs, run.start_from) == ("yolox", 300, "scratch")
    assert isinstance(run.optimizer, SGDConfig)
    assert (run.optimizer.lr, run.optimizer.lr_batch, run.optimizer.nesterov) == (0.01, 64, True)
    assert run.criterion == SimOTACriterionConfig()
    canvas, light = run.augment.canvas, run_config("yolox_tiny").augment
    assert canvas is not None
    assert light.canvas is not None
    assert canvas.sides == tuple(range(480, 801, 32))
    assert (light.canvas.sides[0], light.canvas.sides[-1], light.find(MixUpStep)) == (320, 640, None)
    assert configuration.from_dict(RunConfig, configuration.to_dict(run)) == run
    pai = run_config("yolox_pai_s_asff_thead3").criterion
    assert isinstance(pai, SimOTACriterionConfig)
    assert (pai.box_loss, pai.assigner.epsilon) == ("hull", 1e-8)


def test_what_ends_fifteen_epochs_before_the_end() -> None:
    run = run_config("yolox_s")
    # Mosaic, MixUp and random scales, but neither mirrors nor colours.
    ending = {step.kind: getattr(step, "until", 1.0) * 300 for step in run.augment.steps}
    assert ending == {"mosaic": 285, "canvas": 285, "mixup": 285, "flip": 300, "photometric": 300}
    assert isinstance(run.criterion, SimOTACriterionConfig)
    assert run.criterion.l1_share * 300 == pytest.approx(15)


def test_the_rate_grows_by_squares_and_is_at_its_least_in_the_end() -> None:
    schedule = run_config("yolox_s").schedule
    factors = [rate_factor(schedule, 1000 * epoch, epoch / 300) for epoch in range(301)]
    assert factors[0] == 0
    assert factors[2] == pytest.approx((2 / 5) ** 2, rel=1e-2)
    assert max(factors) == pytest.approx(1, abs=2e-3)
    assert factors[285] == pytest.approx(0.05)
    assert factors[300] == pytest.approx(0.05)
    assert factors[145] == pytest.approx(0.05 + 0.95 / 2, abs=0.02)
    with pytest.raises(ToodError, match=r"schedule\.final_share is 1"):
        CosineScheduleConfig(final_share=1)
    with pytest.raises(ToodError, match=r"schedule\.warm_up_power is 0"):
        CosineScheduleConfig(warm_up_power=0)


def sample_of(colour: int, box: tuple[float, float, float, float], label: int) -> Sample:
    return Sample(
        np.full((40, 60, 3), colour, np.uint8),
        np.array([box], np.float32),
        np.array([label]),
        np.array([label == 1]),
    )


def test_mixup_blends_two_images_and_keeps_the_objects_of_both() -> None:
    one, other = sample_of(100, (0, 0, 30, 20), 0), sample_of(201, (30, 20, 60, 40), 1)
    drawn: list[float] = []

    def fetch(rng: np.random.Generator) -> Sample:
        drawn.append(rng.random())
        return other

    mixed = MixUp(fetch, Resize(40, 60))(one, np.random.default_rng(0))
    assert len(drawn) == 1
    assert set(np.unique(mixed.image)) <= {150, 151}
    assert mixed.boxes.tolist() == [[0, 0, 30, 20], [30, 20, 60, 40]]
    assert (mixed.labels.tolist(), mixed.crowd.tolist()) == ([0, 1], [False, True])
    assert (one.image == 100).all(), "transforms write into no array"


@pytest.mark.parametrize("share", [0.0, 0.94, 0.95, 1.0])
def test_mosaic_mixup_and_scales_end_before_the_run(share: float) -> None:
    config = AugmentConfig(
        (MosaicStep(until=0.95), CanvasStep(64, scale=(0.3, 2.0), until=0.95), MixUpStep(until=0.95), FlipStep(0.0))
    )
    fetched: list[int] = []

    def fetch(rng: np.random.Generator) -> Sample:
        fetched.append(1)
        return sample_of(201, (30, 20, 60, 40), 1)

    given = Circumstances(InputConfig(64, 64, pad=(114,) * 3), (64, 64), fetch, share)
    after = build_transforms(config, given)(sample_of(100, (0, 0, 30, 20), 0), np.random.default_rng(3))
    assert after.image.shape == (64, 64, 3)
    if share < 0.95:
        assert len(fetched) == 4, "three of the mosaic, one blended with it"
    else:
        assert not fetched
        sides = after.boxes[:, 2:] - after.boxes[:, :2]
        np.testing.assert_allclose(sides, [[32, 64 / 3]], atol=0.6)


@pytest.mark.parametrize("letterbox", ["corner", "middle"])
def test_in_the_end_images_lie_where_evaluation_has_them(letterbox: Literal["corner", "middle"]) -> None:
    config = AugmentConfig((MosaicStep(until=0.95), CanvasStep(64, scale=(0.3, 2.0), until=0.95)))
    network = InputConfig(64, 64, fit="letterbox", letterbox=letterbox, pad=(114,) * 3)
    transforms = build_transforms(config, Circumstances(network, (64, 64), lambda rng: pytest.fail("no mosaic"), 0.95))
    sample = sample_of(100, (0, 0, 30, 20), 0)
    given = transforms(sample, np.random.default_rng(3))
    wanted, geometry = prepare(sample.image, network)
    assert np.array_equal(given.image, wanted)
    np.testing.assert_allclose(given.boxes, geometry.to_input(sample.boxes), rtol=1e-6)


def test_a_larger_or_smaller_input_keeps_the_model_s_own_augmentation() -> None:
    whole, light = run_config("yolox_s", size=448).augment, run_config("yolox_tiny", size=640).augment
    assert whole.find(MixUpStep) is not None
    assert light.find(MixUpStep) is None
    assert (run_config("yolox_nano").recipe, run_config("yolox_s").recipe) == ("yolox_light", "yolox")


def test_a_mixup_needs_a_canvas_before_it() -> None:
    with pytest.raises(ToodError, match=r"augment\.steps has a mixup, which needs a canvas"):
        AugmentConfig((FitStep(), MixUpStep()))
    with pytest.raises(ToodError, match=r"augment\.steps has a mixup before the canvas"):
        AugmentConfig((MixUpStep(), CanvasStep(64)))
    with pytest.raises(ToodError, match=r"mixup\.scale is \(0, 1\)"):
        MixUpStep(scale=(0, 1))
    added = AugmentConfig((CanvasStep(64), FlipStep())).with_step(MixUpStep())
    assert [step.kind for step in added.steps] == ["canvas", "mixup", "flip"]
    assert added.largest_scale(64, 64, InputConfig(64, 64)) == pytest.approx(1.6)
    with pytest.raises(ValueError, match="fetch"):
        build_transforms(added, Circumstances(InputConfig(64, 64)))
