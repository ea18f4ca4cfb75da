"""Numbers that are read a step later, as on an accelerator: the same weights, and nothing bad is ever kept."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tood.alignment import Losses, Progress
from tood.errors import ToodError
from tood.models import AnyDetector
from tood.training import AdamWConfig, RunConfig, SGDConfig
from tood.training.checkpoint import read_checkpoint
from tood.training.learner import Learner
from tood.training.loop import Trainer
from training.fakes import FakeScores, squares_loader, tiny_run, tiny_trainer

OPTIMIZERS = {
    "sgd": SGDConfig(lr=0.02, lr_batch=None),
    "nesterov": SGDConfig(lr=0.02, lr_batch=None, nesterov=True),
    "no momentum": SGDConfig(lr=0.02, lr_batch=None, momentum=0.0),
    "adamw": AdamWConfig(lr=1e-3),
}
Poison = Callable[[Learner, set[int]], None]


def deferred(trainer: Trainer) -> Trainer:
    trainer.learner.guard.deferred = True
    return trainer


def frozen(state: Any) -> Any:
    """A copy that later steps do not reach."""
    if isinstance(state, Tensor):
        return state.detach().clone()
    if isinstance(state, dict):
        return {key: frozen(value) for key, value in state.items()}
    return [frozen(value) for value in state] if isinstance(state, list | tuple) else state


def assert_same(one: Any, two: Any, where: str = "") -> None:
    if isinstance(one, Tensor):
        assert torch.equal(one, two), where
    elif isinstance(one, dict):
        assert one.keys() == two.keys(), where
        for key in one.keys() - {"param_groups"}:  # whose rates are set before each step
            assert_same(one[key], two[key], f"{where}.{key}")
    elif isinstance(one, list):
        assert len(one) == len(two), where
        for i, (a, b) in enumerate(zip(one, two, strict=True)):
            assert_same(a, b, f"{where}[{i}]")
    else:
        assert one == two, where


def bad_output(learner: Learner, steps: set[int]) -> None:
    """The network itself gives no numbers: its images have none."""
    forward = learner.model.forward

    def poisoned(images: Tensor) -> Any:
        return forward(images * float("nan") if learner.check.step in steps else images)

    learner.model.forward = poisoned


def bad_loss(learner: Learner, steps: set[int]) -> None:
    finite = learner.losses

    def losses(batch: Any, number: int, *rest: Any) -> Losses:
        found = finite(batch, number, *rest)
        factor = float("inf") if number in steps else 1.0
        return replace(found, per_prior={name: value * factor for name, value in found.per_prior.items()})

    learner.losses = losses  # type: ignore[method-assign]


def bad_gradient(learner: Learner, steps: set[int]) -> None:
    limit = learner._limit_gradient

    def poisoned(batches: Any, number: int) -> None:
        if number in steps:
            gradients = [p.grad for p in learner.model.parameters() if p.grad is not None]
            gradients[-1].fill_(float("nan"))
        limit(batches, number)

    learner._limit_gradient = poisoned  # type: ignore[method-assign]


POISONS: dict[str, Poison] = {"output": bad_output, "loss": bad_loss, "gradient": bad_gradient}


@pytest.fixture(params=POISONS)
def poison(request: pytest.FixtureRequest) -> Poison:
    return POISONS[request.param]


@pytest.mark.parametrize("optimizer", OPTIMIZERS.values(), ids=OPTIMIZERS)
@pytest.mark.parametrize("accumulation", [1, 2])
def test_a_run_is_the_same_bit_for_bit(tmp_path: Path, optimizer: SGDConfig | AdamWConfig, accumulation: int) -> None:
    rows, states = [], []
    for name, prepare in (("at once", lambda trainer: trainer), ("later", deferred)):
        config = replace(tiny_run(tmp_path / name), optimizer=optimizer, accumulation=accumulation, log_every=2)
        trainer = prepare(tiny_trainer(config, lambda model: FakeScores(0.5)))
        trainer.run()
        states.append(trainer.learner.state_dict())
        table = [row.split(",") for row in (tmp_path / name / "metrics.csv").read_text().splitlines()]
        rows.append([row[:2] + row[4:] for row in table])  # without times
    assert_same(*states)
    assert rows[0] == rows[1]
    assert len(rows[0]) > 3


@pytest.mark.parametrize("optimizer", OPTIMIZERS.values(), ids=OPTIMIZERS)
@pytest.mark.parametrize("number", [1, 3])
def test_a_bad_step_leaves_everything_as_it_was(
    tmp_path: Path, poison: Poison, optimizer: SGDConfig | AdamWConfig, number: int
) -> None:
    config = replace(tiny_run(tmp_path), optimizer=optimizer, not_finite="skip")
    learner = deferred(tiny_trainer(config)).learner
    poison(learner, {number})
    batches = list(squares_loader(count=8))
    learner.train_mode()
    for step, batch in enumerate(batches, start=1):
        before = frozen(learner.state_dict())
        launched = learner.launch([batch], step, 0.01, Progress(epoch=step))
        if step == number:
            if number > 1:
                assert_same(frozen(learner.state_dict()), before)
            else:  # an optimiser that has made no step has no state yet, or one of zeros
                after = frozen(learner.state_dict())
                assert_same([after["model"], after["ema"]], [before["model"], before["ema"]])
                state = after["optimizer"]["state"].values()
                assert all(not value.any() for one in state for value in one.values() if isinstance(value, Tensor))
            with pytest.raises(ToodError, match=rf"not finite at step {step}, on the images picture"):
                launched.losses()
        else:
            assert all(0 <= value < 100 for value in launched.losses().values())
            moved = learner.state_dict()["model"]
            assert any(not torch.equal(value, before["model"][name]) for name, value in moved.items())


def test_skipped_steps_leave_what_the_immediate_way_leaves(tmp_path: Path, poison: Poison) -> None:
    states, said = [], []
    for name, prepare in (("at once", lambda trainer: trainer), ("later", deferred)):
        config = replace(tiny_run(tmp_path / name), not_finite="skip", optimizer=OPTIMIZERS["sgd"])
        trainer = prepare(tiny_trainer(config))
        poison(trainer.learner, {1, 2, 4, 9})
        told: list[str] = []
        trainer.display.say = told.append  # type: ignore[method-assign]
        assert trainer.run().steps == 9
        said.append([text for text in told if "skipped" in text])
        states.append({**trainer.learner.state_dict(), "position": trainer.position.skipped})
    for one, two in zip(*said, strict=True):
        assert one.split(" (")[0] == two.split(" (")[0]
        assert one.split("images ")[1] == two.split("images ")[1]
    assert len(said[0]) == 4
    assert_same(*states)


@pytest.mark.parametrize("number", [1, 2, 5, 9])
def test_a_run_that_stops_stands_before_its_bad_step_and_keeps_nothing_of_it(
    tmp_path: Path, poison: Poison, number: int
) -> None:
    kept = []
    for name, prepare in (("at once", lambda trainer: trainer), ("later", deferred)):
        out = tmp_path / name
        evaluated: list[bool] = []

        def evaluate(model: AnyDetector, evaluated: list[bool] = evaluated) -> FakeScores:
            evaluated.append(all(value.isfinite().all() for value in model.state_dict().values()))
            return FakeScores(0.1 * len(evaluated))

        config = replace(tiny_run(out), log_every=100)
        trainer = prepare(tiny_trainer(config, evaluate))
        poison(trainer.learner, {number})
        with pytest.raises(ToodError, match=rf"not finite at step {number}, on the images picture\d\.png, picture"):
            trainer.run()
        assert evaluated == [True] * ((number - 1) // 3), "no evaluation after the bad step"
        assert (trainer.position.step, trainer.position.skipped) == (number - 1, 1)
        if number > 1:
            state = read_checkpoint(out)
            kept.append({key: state[key] for key in ("model", "ema", "optimizer", "position")})
            kept[-1]["position"] = {k: v for k, v in state["position"].items() if "seconds" not in k}
            for path in out.glob("*.safetensors"):
                assert all(value.isfinite().all() for value in load(path).values()), path.name
        else:
            assert not list(out.glob("*.safetensors"))
            assert not list(out.glob("checkpoint*"))
    if kept:
        assert_same(*kept)


def load(path: Path) -> dict[str, Tensor]:
    from safetensors.torch import load_file

    return load_file(path)


def test_a_step_that_was_launched_behind_a_bad_one_moves_nothing(tmp_path: Path) -> None:
    learner = deferred(tiny_trainer(tiny_run(tmp_path))).learner
    bad_loss(learner, {2})
    batches = list(squares_loader(count=6))
    learner.train_mode()
    first = learner.launch([batches[0]], 1, 0.01, Progress())
    before = frozen(learner.state_dict())
    second, third = (learner.launch([batches[i]], i + 1, 0.01, Progress()) for i in (1, 2))
    assert_same(frozen(learner.state_dict()), before)
    first.losses()
    with pytest.raises(ToodError, match="step 2"):
        second.losses()
    third.losses()


def test_a_checkpoint_is_written_behind_no_number_that_was_not_read(tmp_path: Path) -> None:
    trainer = deferred(tiny_trainer(replace(tiny_run(tmp_path), checkpoint_minutes=0.0)))
    normal, unread = trainer._write_files, []

    def write(states: Any) -> None:
        unread.append(len(trainer.under_way))
        normal(states)

    trainer._write_files = write  # type: ignore[method-assign]
    trainer.run()
    assert len(unread) > 8
    assert not any(unread)


def test_weights_that_have_gone_end_the_run_after_as_many_steps(tmp_path: Path) -> None:
    trainer = deferred(tiny_trainer(replace(tiny_run(tmp_path), not_finite="skip", epochs=20)))
    bad_gradient(trainer.learner, set(range(5, 16)))  # and those behind them would be good
    with pytest.raises(ToodError, match=r"the gradient .* is not finite at step 15"):
        trainer.run()
    assert trainer.position.step == 14
    assert read_checkpoint(tmp_path)["position"]["step"] == 14


def test_a_failure_between_two_steps_keeps_the_good_ones_and_none_else(tmp_path: Path) -> None:
    for number, kept in ((100, 4), (4, 3)):
        out = tmp_path / str(number)
        trainer = deferred(tiny_trainer(replace(tiny_run(out), log_every=100)))
        bad_loss(trainer.learner, {number})
        normal = trainer._step

        def step(group: Any, progress: float, trainer: Trainer = trainer, normal: Any = normal) -> None:
            if trainer.position.step == 4:
                assert len(trainer.under_way) == 1
                raise ToodError("picture9.png cannot be read")
            normal(group, progress)

        trainer._step = step  # type: ignore[method-assign]
        with pytest.raises(ToodError, match="picture9"):
            trainer.run()
        assert read_checkpoint(out)["position"]["step"] == kept


def test_fp16_drops_steps_without_a_word_and_lowers_its_scale(tmp_path: Path) -> None:
    learner = deferred(tiny_trainer(replace(tiny_run(tmp_path), clip_gradient=None))).learner
    learner.accelerator.scaler = torch.amp.GradScaler("cpu", init_scale=4.0)  # type: ignore[attr-defined]
    bad_gradient(learner, {2})
    batches = list(squares_loader(count=6))
    learner.train_mode()
    scales, weights = [], []
    for step, batch in enumerate(batches, start=1):
        losses = learner.launch([batch], step, 0.01, Progress()).losses()
        assert all(0 <= value < 100 for value in losses.values())
        scales.append(learner.accelerator.scaler.get_scale())
        weights.append(frozen([learner.state_dict()["model"], learner.state_dict()["ema"]]))
    assert scales == [4, 2, 2]
    assert_same(weights[0], weights[1])
    assert not torch.equal(*(next(iter(found[0].values())) for found in weights[1:]))


def test_a_scaled_step_is_the_unscaled_one(tmp_path: Path) -> None:
    states = []
    for name, scale in (("plain", None), ("scaled", 8.0)):
        config: RunConfig = replace(tiny_run(tmp_path / name), clip_gradient=0.5)
        learner = deferred(tiny_trainer(config)).learner
        if scale is not None:
            learner.accelerator.scaler = torch.amp.GradScaler("cpu", init_scale=scale)  # type: ignore[attr-defined]
        learner.train_mode()
        for step, batch in enumerate(squares_loader(count=6), start=1):
            learner.step([batch], step, 0.01, Progress())
        states.append(learner.state_dict()["model"])
    assert_same(*states)
