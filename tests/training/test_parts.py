"""Averaging, optimisers, configuration of a run, recipes, checkpoints, the display."""

from __future__ import annotations

import copy
import io
import math
import random
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from rich.console import Console
from torch import nn

from tood import configuration
from tood.alignment import ATSSCriterionConfig, Progress, TaskAlignedCriterionConfig
from tood.data.transforms import CanvasStep, Circumstances, FitStep, FlipStep, Sample, build_transforms
from tood.errors import ToodError
from tood.models import build_model
from tood.training import EMA, AdamWConfig, EMAConfig, RunConfig, SGDConfig, rate_factor, run_config
from tood.training.accelerator import deterministic
from tood.training.checkpoint import random_states, read_checkpoint, set_random_states, write_checkpoint
from tood.training.optim import build_optimizer, load_optimizer, parameter_groups, scaled_rate, set_rate
from tood.training.progress import Status, TrainingDisplay, duration
from tood.zoo import named_models
from training.fakes import tiny_model, tiny_run, tiny_trainer


def test_the_average_follows_its_formula() -> None:
    config = EMAConfig(enabled=True, decay=0.9, ramp=10)
    module = nn.BatchNorm1d(1)
    average = EMA(module, config)
    weight, mean = 1.0, 0.0
    for step in range(1, 6):
        with torch.no_grad():
            module.weight.fill_(step)
            module.running_mean.fill_(10 * step)  # type: ignore[union-attr]
            module.num_batches_tracked.fill_(step)  # type: ignore[union-attr]
        average.update(module, step)
        decay = min(0.9, (1 + step) / (10 + step))
        weight, mean = decay * weight + (1 - decay) * step, decay * mean + (1 - decay) * 10 * step
    assert average.module.weight.item() == pytest.approx(weight, rel=1e-5)
    assert float(average.module.running_mean) == pytest.approx(mean, rel=1e-5)  # type: ignore[arg-type]
    assert int(average.module.num_batches_tracked) == 5, "counters are copied"  # type: ignore[arg-type]
    assert not average.module.training
    assert module.weight.item() == 5, "the module itself is not touched"


def test_only_what_learns_is_optimised_and_norms_and_biases_may_go_without_decay() -> None:
    model = build_model(tiny_model())
    model.backbone.requires_grad_(False)
    learning = {id(p) for p in model.parameters() if p.requires_grad}
    (everything,) = parameter_groups(model, 0.1, decay_norm_and_bias=True)
    assert {id(p) for p in everything["params"]} == learning
    decayed, free = parameter_groups(model, 0.1, decay_norm_and_bias=False)
    assert {id(p) for p in decayed["params"]} | {id(p) for p in free["params"]} == learning
    assert (decayed["weight_decay"], free["weight_decay"]) == (0.1, 0.0)
    assert all(p.ndim > 1 for p in decayed["params"])
    names = {id(p): name for name, p in model.named_parameters()}
    assert all(names[id(p)].endswith(("bias", "norm.weight")) or "scales" in names[id(p)] for p in free["params"])


def test_the_rate_scales_linearly_with_the_batch_it_is_meant_for() -> None:
    assert scaled_rate(SGDConfig(), 16) == 0.01
    assert scaled_rate(SGDConfig(), 4) == pytest.approx(0.0025)
    assert scaled_rate(SGDConfig(lr_batch=None), 4) == 0.01


def test_the_optimisers_are_those_that_the_configuration_says() -> None:
    model = build_model(tiny_model())
    sgd = build_optimizer(SGDConfig(momentum=0.8, weight_decay=0.3), model, 0.5)
    assert isinstance(sgd, torch.optim.SGD)
    assert (sgd.param_groups[0]["lr"], sgd.param_groups[0]["momentum"], sgd.param_groups[0]["weight_decay"]) == (
        0.5,
        0.8,
        0.3,
    )
    adamw = build_optimizer(AdamWConfig(betas=(0.8, 0.9)), model, 0.5)
    assert isinstance(adamw, torch.optim.AdamW)
    assert adamw.param_groups[0]["betas"] == (0.8, 0.9)


def test_a_resumed_optimiser_goes_on_in_another_memory_layout() -> None:
    def step(conv: nn.Conv2d, optimizer: torch.optim.Optimizer) -> torch.Tensor:
        optimizer.zero_grad()
        conv(torch.linspace(-1, 1, 320).view(1, 4, 8, 10)).square().sum().backward()
        optimizer.step()
        return conv.weight.detach().clone()

    def learning() -> tuple[nn.Conv2d, torch.optim.Optimizer]:
        torch.manual_seed(0)
        conv = nn.Conv2d(4, 8, 3)
        return conv, build_optimizer(SGDConfig(lr=1e-3), conv, 1e-3)

    conv, optimizer = learning()
    step(conv, optimizer)
    saved = [{**group, "fused": None} for group in optimizer.state_dict()["param_groups"]]  # as older versions wrote it
    weights, state = conv.state_dict(), {**optimizer.state_dict(), "param_groups": saved}
    other, of_other = learning()
    other.load_state_dict(weights)
    other.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    load_optimizer(of_other, copy.deepcopy(state))
    assert of_other.param_groups[0]["fused"]
    torch.testing.assert_close(step(other, of_other), step(conv, optimizer), rtol=1e-5, atol=1e-7)


def test_the_geometric_assigner_rules_for_four_epochs_or_a_third_of_a_short_run() -> None:
    criterion = TaskAlignedCriterionConfig()
    epochs = lambda total: [criterion.in_warm_up(Progress(e, e / total)) for e in range(total)]  # noqa: E731
    assert epochs(12) == [True] * 4 + [False] * 8
    assert epochs(24) == [True] * 4 + [False] * 20
    assert epochs(6) == [True] * 2 + [False] * 4
    by_share = run_config("tood_tiny").criterion
    assert isinstance(by_share, TaskAlignedCriterionConfig)
    assert by_share.in_warm_up(Progress(20, 0.3))
    assert not by_share.in_warm_up(Progress(20, 0.34))


def test_keys_of_older_runs_are_taken_where_they_belong_now() -> None:
    older = configuration.to_dict(RunConfig())
    del older["criterion"]["warm_up_epochs"], older["criterion"]["warm_up_share"], older["model"]["postprocess"]["kind"]
    older |= {"assigner_warm_up_epochs": 2, "assigner_warm_up_share": 0.25}
    expected = replace(RunConfig(), criterion=TaskAlignedCriterionConfig(warm_up_epochs=2, warm_up_share=0.25))
    assert configuration.from_dict(RunConfig, older) == expected
    del older["criterion"]
    assert configuration.from_dict(RunConfig, older) == expected
    # An ATSS run had them, too, without a use for them.
    older["criterion"] = {"kind": "atss"}
    assert configuration.from_dict(RunConfig, older) == replace(RunConfig(), criterion=ATSSCriterionConfig())
    settings = ["assigner_warm_up_epochs=2", "assigner_warm_up_share=0.25"]
    assert configuration.apply_overrides(RunConfig(), settings) == expected


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("epochs=0", "epochs is 0: expected 1 or more"),
        ("minutes=0", r"minutes is 0\.0: expected a number above 0"),
        ("minutes=.inf", "minutes is inf"),
        ("data.workers=-1", r"data\.workers is -1: expected 0 or more"),
        ("optimizer.lr=-1", r"optimizer\.lr is -1\.0: expected a number above 0"),
        ("optimizer.lr_batch=0", r"optimizer\.lr_batch is 0"),
        ("optimizer.momentum=1", r"optimizer\.momentum is 1\.0"),
        ("ema.decay=1", r"ema\.decay is 1\.0"),
        ("criterion.warm_up_share=2", r"warm_up_share is 2\.0: expected a number from 0 to 1"),
        ("augment.flip=2", r"flip\.horizontal is 2\.0: give a number"),
        ("precision=fp64", r"precision is 'fp64': expected auto, fp32, bf16 or fp16"),
        ("model.backbone.block=basik", r"model\.backbone\.block is 'basik'.* did you mean basic\?"),
        ("criterion.assigner.top=3", r"criterion\.assigner\.top"),
    ],
)
def test_a_wrong_setting_is_named(setting: str, message: str) -> None:
    with pytest.raises(ToodError, match=message):
        configuration.apply_overrides(RunConfig(), [setting])


SHORT = "model.input.short=576"


@pytest.mark.parametrize("order", [1, -1])
def test_sizes_that_only_hold_together_come_in_any_order(order: int) -> None:
    larger = configuration.apply_overrides(
        run_config("tood_lite2"), [SHORT, "epochs=2", "model.input.long=576"][::order]
    )
    assert (larger.model.input.short, larger.model.input.long, larger.epochs) == (576, 576, 2)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ([SHORT, "epochs=2"], r"input\.short and input\.long are 576 and 512"),
        ([SHORT, "model.input.lnog=576"], r"no key 'model\.input\.lnog'"),
        ([SHORT, "model.input.long=57x"], r"model\.input\.long is '57x'"),
        (["epochs=0", "epochs=2"], "epochs is 0"),
        ([SHORT, "model.input={short: 320, long: 320}"], "are 576 and 512"),
        (["optimizer.momentum=0.8", "optimizer={kind: sgd, lr: 0.1}"], r"no key 'optimizer\.momentum'"),
        (["model.backbone.kind=resnet", "model.backbone.depth=20"], r"model\.backbone\."),
    ],
)
def test_a_setting_that_others_behind_it_do_not_mend_is_refused(settings: list[str], message: str) -> None:
    with pytest.raises(ToodError, match=message):
        configuration.apply_overrides(run_config("tood_lite2"), settings)


def test_a_refused_kind_is_not_switched_to_behind_the_settings_meant_for_it() -> None:
    settings = ["model.backbone.kind=efficientnet_lite", "model.backbone.stem_width=8", "model.backbone.width=1"]
    with pytest.raises(ToodError, match=r"model\.backbone\.width is 32"):
        configuration.apply_overrides(run_config("tood_tiny"), settings)


@pytest.mark.parametrize("model", list(named_models()))
def test_the_run_of_every_named_model_survives_its_file(tmp_path: Path, model: str) -> None:
    run = replace(run_config(model), out=tmp_path / "x", minutes=1.5)
    configuration.save(run, tmp_path / "config.yaml")
    assert configuration.load(tmp_path / "config.yaml", RunConfig) == run


def test_recipes_follow_the_model_and_its_size() -> None:
    run = run_config("tood_r50_fpn_1x")
    assert (run.recipe, run.epochs, run.batches()) == ("1x", 12, (16, 1))
    assert run.optimizer == SGDConfig(lr=0.01, momentum=0.9, weight_decay=1e-4)
    assert not run.ema.enabled
    twice = run_config("tood_r50_fpn_1x", recipe="2x")
    assert (twice.epochs, twice.augment.find(FitStep)) == (24, FitStep(shortest=480))
    assert twice.schedule.milestones == (16, 22)  # type: ignore[union-attr]
    small = run_config("tood_r50_fpn_1x", size=400)
    assert (small.model.input.short, small.model.input.long) == (400, 666)
    assert (small.model.input.short, small.model.input.long) == (400, 666)
    tiny = run_config("tood_tiny", size=256)
    assert tiny.augment.find(CanvasStep) == CanvasStep(224, scale=(0.7, 1.5))
    assert (tiny.model.input.short, tiny.model.input.long) == (256, 256)
    assert tiny.ema.enabled
    with pytest.raises(ToodError, match="no recipe 'smal': did you mean 'small'"):
        run_config("tood_tiny", recipe="smal")
    with pytest.raises(ToodError, match="did you mean 'tood_tiny'"):
        run_config("tood_tyni")
    with pytest.raises(ToodError, match="size is 0"):
        run_config("tood_tiny", size=0)


@pytest.mark.parametrize(
    ("recipe", "epochs", "drops"),
    [("1x", 12, (8, 11)), ("1.5x", 18, (12, 16)), ("2x", 24, (16, 22)), ("3x", 36, (28, 34))],
)
def test_the_published_recipes_number_for_number(recipe: str, epochs: int, drops: tuple[int, int]) -> None:
    run = run_config("tood_r50_fpn_1x", recipe=recipe)
    model, steps = build_model(run.model), 1000
    optimizer = build_optimizer(run.optimizer, model, scaled_rate(run.optimizer, 16))
    (group,) = optimizer.param_groups
    assert isinstance(optimizer, torch.optim.SGD)
    assert (group["lr"], group["momentum"], group["weight_decay"], group["nesterov"]) == (0.01, 0.9, 1e-4, False)
    assert {id(p) for p in group["params"]} == {id(p) for p in model.parameters() if p.requires_grad}
    rate = lambda step: rate_factor(run.schedule, step, step / (epochs * steps)) * 0.01  # noqa: E731
    for step in (0, 1, 250, 499):
        assert rate(step) == pytest.approx(0.01 * (0.001 + 0.999 * step / 500))
    first, second = (drop * steps for drop in drops)
    assert [rate(step) for step in (500, first - 1, first, second - 1, second, epochs * steps - 1)] == pytest.approx(
        [0.01, 0.01, 0.001, 0.001, 0.0001, 0.0001]
    )
    assert run.epochs == epochs
    assert isinstance(run.criterion, TaskAlignedCriterionConfig)
    assert [run.criterion.in_warm_up(Progress(epoch, epoch / epochs)) for epoch in (0, 3, 4)] == [True, True, False]
    assert (run.clip_gradient, run.ema.enabled) == (None, False)
    assert (run.data.keep_empty, run.data.smallest_side) == (False, 32)
    augment = run.augment
    shortest = {"2x": 480, "3x": 640}.get(recipe)
    sizes = FitStep() if shortest is None else FitStep(shortest=shortest)
    assert augment.steps == (sizes, FlipStep(0.5))
    shapes = set()
    sample = Sample(np.zeros((480, 640, 3), np.uint8), np.zeros((0, 4)), np.zeros(0, int), np.zeros(0, bool))
    for seed in range(30):
        image = build_transforms(augment, Circumstances(run.model.input))(sample, np.random.default_rng(seed)).image
        shapes.add(image.shape[:2])
        assert image.shape[1] == pytest.approx(image.shape[0] * 4 / 3, abs=1)
    short = {shape[0] for shape in shapes}
    assert short == {800} if shortest is None else min(short) >= shortest and max(short) <= 800 and len(short) > 20
    wide = replace(sample, image=np.zeros((100, 400, 3), np.uint8))
    assert all(
        build_transforms(augment, Circumstances(run.model.input))(wide, np.random.default_rng(seed)).image.shape[1]
        <= 1333
        for seed in range(5)
    )


@pytest.mark.parametrize(
    ("batch_size", "processes", "batches", "rate"),
    [
        (None, 1, (16, 1), 0.01),
        (None, 4, (4, 1), 0.01),
        (None, 3, (5, 1), 0.01 * 15 / 16),
        (None, 64, (1, 1), 0.04),
        (4, 1, (4, 4), 0.01),
        (4, 2, (4, 2), 0.01),
        (1, 1, (1, 16), 0.01),
        (6, 1, (6, 3), 0.01 * 18 / 16),
        (11, 1, (11, 1), 0.01 * 11 / 16),
        (8, 8, (8, 1), 0.04),
    ],
)
def test_batches_make_up_the_recipe_s_images_a_step(
    batch_size: int | None, processes: int, batches: tuple[int, int], rate: float
) -> None:
    run = replace(run_config("tood_r50_fpn_1x"), batch_size=batch_size)
    assert run.batches(processes) == batches
    assert scaled_rate(run.optimizer, math.prod(batches) * processes) == pytest.approx(rate)


def test_batches_are_what_was_asked_for_where_no_images_a_step_are_meant() -> None:
    small = run_config("tood_tiny")
    assert small.batches() == small.batches(4) == (8, 1)
    run = run_config("tood_r50_fpn_1x")
    assert replace(run, batch_size=2, accumulation=3).batches(4) == (2, 3)
    unscaled = replace(run, optimizer=SGDConfig(lr_batch=None))
    assert unscaled.batches(2) == (8, 1)
    assert replace(unscaled, batch_size=2).batches() == (2, 1)


def test_a_checkpoint_returns_what_was_written(tmp_path: Path) -> None:
    write_checkpoint(tmp_path, {"a": torch.arange(3), "b": {"c": (1, "x", None)}})
    state = read_checkpoint(tmp_path)
    assert torch.equal(state["a"], torch.arange(3))
    assert state["b"] == {"c": (1, "x", None)}
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint.pt"]


def test_a_checkpoint_that_cannot_be_written_leaves_the_one_before_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_checkpoint(tmp_path, {"step": 1})

    def full_disk(state: object, file: io.BufferedWriter) -> None:
        file.write(b"half of it")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", full_disk)
    with pytest.raises(ToodError, match=r"No space left on device.*the checkpoint before it is intact"):
        write_checkpoint(tmp_path, {"step": 2}, keep=2)
    assert read_checkpoint(tmp_path)["step"] == 1
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint.pt"]


def test_as_many_checkpoints_are_kept_as_asked(tmp_path: Path) -> None:
    for step in range(5):
        write_checkpoint(tmp_path, {"step": step}, keep=3)
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["checkpoint-000003.pt", "checkpoint-000004.pt", "checkpoint.pt"]
    assert read_checkpoint(tmp_path)["step"] == 4
    (tmp_path / "checkpoint-000004.pt").replace(tmp_path / "checkpoint.pt")
    assert read_checkpoint(tmp_path)["step"] == 3


class Hostile:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return print, ("executed",)


@pytest.mark.parametrize("damage", ["missing", "empty", "truncated", "text", "hostile", "foreign"])
def test_a_damaged_checkpoint_is_one_sentence(tmp_path: Path, damage: str, capsys: pytest.CaptureFixture[str]) -> None:
    path = write_checkpoint(tmp_path, {"a": torch.zeros(1000)})
    if damage == "missing":
        path.unlink()
    elif damage == "hostile":
        torch.save(Hostile(), path)
    elif damage == "foreign":
        torch.save({"state_dict": {}}, path)
    else:
        path.write_bytes({"empty": b"", "truncated": path.read_bytes()[:2000], "text": b"hello"}[damage])
    with pytest.raises(ToodError, match=r"checkpoint\.pt") as caught:
        read_checkpoint(tmp_path)
    assert "\n" not in str(caught.value)
    assert "executed" not in capsys.readouterr().out


def test_random_states_are_taken_up(tmp_path: Path) -> None:
    draw = lambda: (random.random(), float(np.random.rand()), float(torch.rand(())))  # noqa: E731, NPY002
    write_checkpoint(tmp_path, {"random": random_states()})
    first = draw()
    set_random_states(read_checkpoint(tmp_path)["random"])
    assert draw() == first


def status(**changes: object) -> Status:
    usual = Status(2, 12, 30, 0.25, 185.0, {"cls": 0.5, "box": 0.25}, 0.01, 12.3, None)
    return replace(usual, **changes)  # type: ignore[arg-type]


def test_the_status_line_says_everything() -> None:
    assert status().line == (
        "epoch 2/12  step 30  loss 0.750 (cls 0.500, box 0.250)  AP -  lr 0.01  12.3 images/s  3:05 left"
    )
    timed = status(epochs=None, ap=0.4567, seconds_left=None).line
    assert timed.startswith("epoch 2  step 30")
    assert "AP 0.457" in timed
    assert "left" not in timed


@pytest.mark.parametrize("terminal", [True, False])
def test_the_display_shows_the_run(terminal: bool) -> None:
    output = io.StringIO()
    console = Console(file=output, force_terminal=terminal, width=160)
    with TrainingDisplay(console) as display:
        display.say("[model] tiny")
        display.step(status())
        display.step(status(step=31, progress=0.3))
    text = output.getvalue()
    assert "[model] tiny" in text, "brackets are text, not markup"
    assert "epoch 2/12" in text
    if not terminal:
        assert text.count("\n") == 2, "one line from time to time, not one a step"
        assert "\x1b" not in text


def test_lengths_of_time_in_words() -> None:
    assert [duration(s) for s in (0, 42.4, 187, 18131, 183600)] == ["0 s", "42 s", "3:07", "5:02:11", "2 d 03 h"]


def test_a_run_says_its_length() -> None:
    assert [replace(tiny_run(Path("x")), epochs=e, minutes=m).length for e, m in ((1, None), (3, None), (3, 1.5))] == [
        "1 epoch",
        "3 epochs",
        "1.5 minutes",
    ]


def test_frozen_parts_stay_as_they_are_with_their_statistics(tmp_path: Path) -> None:
    trainer = tiny_trainer(replace(tiny_run(tmp_path), freeze=("backbone.layer1", "neck")))
    before = {name: value.clone() for name, value in trainer.learner.plain.state_dict().items()}
    trainer.run()
    changed = {
        name for name, value in trainer.learner.plain.state_dict().items() if not torch.equal(value, before[name])
    }
    assert not any(name.startswith(("backbone.layer1.", "neck.")) for name in changed)
    assert {"backbone.conv1.weight", "backbone.bn1.running_mean", "backbone.layer2.0.conv1.weight"} <= changed
    assert any(name.startswith("head.") for name in changed)


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        (("backbone.layer9",), r"freeze has 'backbone.layer9', but backbone has no part 'layer9': it has conv1, bn1, "),
        (("spine",), r"but the model has no part 'spine': it has backbone, neck, head"),
        (("backbone", "neck", "head"), "leaves nothing to learn"),
    ],
)
def test_what_cannot_be_frozen_is_named(tmp_path: Path, parts: tuple[str, ...], message: str) -> None:
    with pytest.raises(ToodError, match=message):
        tiny_trainer(replace(tiny_run(tmp_path), freeze=parts))


def test_stages_learn_the_slower_the_farther_they_are_from_the_head() -> None:
    model = build_model(tiny_model())
    config = SGDConfig(lr=0.1, layer_decay=0.5, weight_decay=0.01, decay_norm_and_bias=False)
    optimizer = build_optimizer(config, model, 0.1)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    rates: dict[str, float] = {}
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            rates[names.pop(id(parameter))] = group["lr"]
            assert group["weight_decay"] == (0.01 if parameter.ndim > 1 else 0)
    assert not names, "each parameter is in one group"
    expected = {
        "head.": 0.1,
        "neck.": 0.05,
        "backbone.layer4": 0.025,
        "backbone.layer1": 0.1 / 32,
        "backbone.conv1": 0.1 / 64,
    }
    for start, rate in expected.items():
        found = {value for name, value in rates.items() if name.startswith(start)}
        assert list(found) == pytest.approx([rate]), start
    set_rate(optimizer, 1.0)
    assert {group["lr"] for group in optimizer.param_groups} == {0.5**n for n in range(7)}


def test_deterministic_runs_refuse_what_is_not_and_leave_the_switch_as_it_was(tmp_path: Path) -> None:
    seen = []
    with deterministic(True):
        seen.append(torch.are_deterministic_algorithms_enabled())
    assert seen == [True]
    assert not torch.are_deterministic_algorithms_enabled()
