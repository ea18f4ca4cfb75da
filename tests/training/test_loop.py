"""The loop: what it leaves behind, that it learns, and that an interrupted run ends where an uninterrupted one does."""

from __future__ import annotations

import csv
import os
import signal
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor

from tood.alignment import Losses, Progress, TaskAlignedCriterionConfig
from tood.errors import ToodError
from tood.models import AnyDetector
from tood.training.checkpoint import read_checkpoint
from tood.training.config import RunConfig
from tood.training.loop import Trainer
from tood.training.schedule import rate_factor
from tood.weights import load_weights
from training.fakes import FakeScores, plain, squares_loader, tiny_run, tiny_trainer


def weights(trainer: Trainer) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in trainer.learner.state_dict()["model"].items()}


def stop_at(trainer: Trainer, step: int, number: int = signal.SIGTERM) -> None:
    """Sends this process a signal while the given step is under way."""
    normal = trainer._step

    def step_and_kill(group: list, progress: float) -> None:  # type: ignore[type-arg]
        if trainer.position.step + 1 == step:
            os.kill(os.getpid(), number)
        normal(group, progress)

    trainer._step = step_and_kill  # type: ignore[method-assign]


def test_a_run_leaves_weights_metrics_and_a_checkpoint(tmp_path: Path) -> None:
    scores = iter([FakeScores(0.2), FakeScores(0.5), FakeScores(0.4)])
    result = tiny_trainer(tiny_run(tmp_path), lambda model: next(scores)).run()
    assert (result.epochs, result.steps, result.interrupted_by) == (3, 9, None)
    assert (result.ap, result.best_ap) == (0.4, 0.5)
    best, names = load_weights(tmp_path / "best.safetensors")
    last, _ = load_weights(tmp_path / "last.safetensors")
    assert names == ("a", "b")
    pairs = zip(best.parameters(), last.parameters(), strict=True)
    assert any(not torch.equal(a, b) for a, b in pairs), "best is of epoch 2, last of epoch 3"
    with (tmp_path / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["AP"] for row in rows if row["AP"]] == ["0.2", "0.5", "0.4"]
    assert [int(row["step"]) for row in rows if row["loss"]] == list(range(1, 10))
    assert all(float(row["loss"]) > 0 and float(row["images_per_second"]) > 0 for row in rows if row["loss"])
    assert any((tmp_path / "tensorboard").iterdir())
    assert read_checkpoint(tmp_path)["position"]["epoch"] == 3


def test_the_average_is_evaluated_and_saved_in_evaluation_mode(tmp_path: Path) -> None:
    seen: list[AnyDetector] = []

    def evaluate(model: AnyDetector) -> FakeScores:
        assert not model.training
        seen.append(model)
        return FakeScores(0.5)

    trainer = tiny_trainer(tiny_run(tmp_path), evaluate)
    trainer.run()
    assert trainer.learner.ema is not None
    assert seen[-1] is trainer.learner.ema.module
    saved, _ = load_weights(tmp_path / "last.safetensors")
    state = saved.state_dict()
    for name, value in trainer.learner.ema.state_dict().items():
        assert torch.equal(state[name], value)
    assert any(not torch.equal(value, state[name]) for name, value in weights(trainer).items())


def test_the_test_split_chooses_no_weights(tmp_path: Path) -> None:
    scores = iter([FakeScores(0.2), FakeScores(0.5), FakeScores(0.4)])
    result = tiny_trainer(tiny_run(tmp_path), lambda model: next(scores), selects=False).run()
    assert result.best_ap == 0.4
    assert result.best is not None
    best, last = load_weights(result.best)[0].state_dict(), load_weights(result.last)[0].state_dict()
    assert all(torch.equal(best[name], last[name]) for name in last)


def test_it_learns(tmp_path: Path) -> None:
    config = replace(tiny_run(tmp_path), epochs=40, criterion=TaskAlignedCriterionConfig(warm_up_share=0.0))
    trainer = tiny_trainer(config)
    trainer.run()
    with (tmp_path / "metrics.csv").open() as file:
        box = [float(row["loss_box"]) for row in csv.DictReader(file) if row["loss_box"]]
    assert sum(box[-10:]) < 0.7 * sum(box[:10])


def test_without_validation_the_last_weights_are_the_best(tmp_path: Path) -> None:
    result = tiny_trainer(tiny_run(tmp_path)).run()
    assert result.ap is None
    assert result.best is not None
    best, last = load_weights(result.best)[0].state_dict(), load_weights(result.last)[0].state_dict()
    assert all(torch.equal(best[name], last[name]) for name in last)


@pytest.mark.parametrize("stop", [1, 3, 5, 9])
@pytest.mark.parametrize("change", [lambda config: config, plain], ids=["ema", "plain"])
def test_interrupted_and_resumed_equals_uninterrupted(
    tmp_path: Path, stop: int, change: Callable[[RunConfig], RunConfig]
) -> None:
    whole = tiny_trainer(change(tiny_run(tmp_path / "whole")), lambda model: FakeScores(0.5))
    expected_result = whole.run()

    config = change(tiny_run(tmp_path / "parts"))
    first = tiny_trainer(config, lambda model: FakeScores(0.5))
    stop_at(first, stop)
    result = first.run()
    assert result.interrupted_by == signal.SIGTERM
    assert result.steps == stop, "the step under way is ended, no other is begun"
    second = tiny_trainer(config, lambda model: FakeScores(0.5))
    second.load_state_dict(read_checkpoint(tmp_path / "parts"))
    torch.rand(7)  # whatever else drew numbers
    result = second.run()

    assert (result.epochs, result.steps) == (expected_result.epochs, expected_result.steps)
    resumed, averaged = weights(second), second.learner.averaged.state_dict()
    for name, value in weights(whole).items():
        assert torch.equal(value, resumed[name]), name
    for name, value in whole.learner.averaged.state_dict().items():
        assert torch.equal(value, averaged[name]), name
    with (tmp_path / "parts/metrics.csv").open() as file:
        steps = [int(row["step"]) for row in csv.DictReader(file) if row["loss"]]
    assert steps == list(range(1, 10))


def test_rows_after_the_checkpoint_are_dropped_on_resuming(tmp_path: Path) -> None:
    first = tiny_trainer(tiny_run(tmp_path))
    stop_at(first, 4)
    first.run()
    with (tmp_path / "metrics.csv").open("a") as file:
        file.write("2,5,9,1,1,1,1,1,,,\r\n2,6,9,1")  # as a run leaves it that was killed later on
    second = tiny_trainer(tiny_run(tmp_path))
    second.load_state_dict(read_checkpoint(tmp_path))
    second.run()
    with (tmp_path / "metrics.csv").open() as file:
        steps = [int(row["step"]) for row in csv.DictReader(file) if row["loss"]]
    assert steps == list(range(1, 10))


def test_the_second_interrupt_is_obeyed_at_once(tmp_path: Path) -> None:
    trainer = tiny_trainer(tiny_run(tmp_path))
    before = signal.getsignal(signal.SIGINT)
    stop_at(trainer, 2, signal.SIGINT)
    normal = trainer._step

    def twice(group: list, progress: float) -> None:  # type: ignore[type-arg]
        normal(group, progress)
        if trainer.position.step == 2:
            os.kill(os.getpid(), signal.SIGINT)

    trainer._step = twice  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        trainer.run()
    assert signal.getsignal(signal.SIGINT) is before


def test_a_run_of_no_time_takes_one_step(tmp_path: Path) -> None:
    result = tiny_trainer(replace(tiny_run(tmp_path), minutes=1e-9)).run()
    assert result.steps == 1
    assert result.best is not None


def test_a_timed_run_ends_on_time_and_reaches_the_schedules_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a clock that steps and evaluations alone drive, whatever else they take on this machine."""
    config = replace(tiny_run(tmp_path), minutes=1.5 / 60, epochs=1)
    now, calls = [100.0], []
    clock = SimpleNamespace(monotonic=lambda: now[0])
    for module in ("schedule", "loop", "state", "validation"):
        monkeypatch.setattr(f"tood.training.{module}.time", clock)

    def evaluate(model: AnyDetector) -> FakeScores:
        calls.append(now[0])
        now[0] += 0.5
        return FakeScores(0.5)

    trainer = tiny_trainer(config, evaluate)
    normal = trainer._step

    def step(group: list, progress: float) -> None:  # type: ignore[type-arg]
        normal(group, progress)
        now[0] += 0.0301

    trainer._step = step  # type: ignore[method-assign]
    result = trainer.run()
    assert result.epochs > 1, "minutes decide, not epochs"
    assert 1.5 <= result.seconds < 1.54, "the final evaluation does not count"
    assert len(calls) <= 2, "evaluations during the run may not take its time"
    with (tmp_path / "metrics.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["lr"]]
    peak, checked = config.optimizer.lr, 0
    for before, row in pairwise(rows):
        # A step takes its rate between the end of the step before it and its own.
        earliest, latest = (min(float(r["seconds"]) / 1.5, 1) for r in (before, row))
        if int(row["step"]) > 4 and earliest > 0.1:  # after the warm-up it only falls
            highest, lowest = (rate_factor(config.schedule, 10, progress) for progress in (earliest, latest))
            assert lowest - 1e-4 <= float(row["lr"]) / peak <= highest + 1e-4
            checked += 1
    assert checked


@pytest.mark.parametrize("where", ["output", "loss"])
def test_what_is_not_finite_names_the_pictures_and_leaves_the_weights(tmp_path: Path, where: str) -> None:
    trainer = tiny_trainer(plain(tiny_run(tmp_path)))
    if where == "output":
        with torch.no_grad():
            next(p for p in trainer.learner.model.parameters() if p.ndim == 4)[0, 0, 0, 0] = float("nan")
    else:
        criterion = trainer.learner.criterion

        def infinite(*arguments: object) -> Losses:
            losses = criterion(*arguments)  # type: ignore[arg-type]
            return replace(losses, per_prior={name: value * float("inf") for name, value in losses.per_prior.items()})

        infinite.terms = criterion.terms  # type: ignore[attr-defined]
        trainer.learner.criterion = infinite  # type: ignore[assignment]
    before = [value.detach().clone() for value in trainer.learner.model.parameters()]
    with pytest.raises(ToodError, match=rf"{where} .*not finite at step 1, .* picture\d\.png, picture\d\.png"):
        trainer.run()
    after = list(trainer.learner.model.parameters())
    assert all(torch.equal(a.nan_to_num(), b.nan_to_num()) for a, b in zip(before, after, strict=True))


def test_accumulated_batches_make_one_step(tmp_path: Path) -> None:
    config = replace(tiny_run(tmp_path), accumulation=2, epochs=2)
    trainer = tiny_trainer(config)
    result = trainer.run()
    assert trainer.steps_per_epoch == 2, "three batches: two and the one that is left"
    assert result.steps == 4
    assert result.epochs == 2


@pytest.mark.parametrize("exact", [True, False], ids=["exact", "batch by batch"])
@pytest.mark.parametrize("progress", [Progress(), Progress(epoch=4)], ids=["warm-up", "aligned"])
def test_accumulated_batches_have_the_loss_and_gradient_of_one_large_batch(
    tmp_path: Path, exact: bool, progress: Progress
) -> None:
    config = replace(plain(tiny_run(tmp_path)), exact_accumulation=exact, clip_gradient=None)
    learner = tiny_trainer(config).learner
    small = list(squares_loader(count=6, batch_size=4))  # 4 images and 2
    whole = next(iter(squares_loader(count=6, batch_size=6)))
    gradients: list[list[Tensor]] = []
    learner.optimizer.step = lambda: gradients.append(
        [p.grad.clone() for p in learner.model.parameters() if p.grad is not None]
    )
    learner.train_mode = lambda: None  # type: ignore[method-assign]  # no batch statistics
    learner.model.eval()
    expected = learner.step([whole], 1, 0.1, progress)
    losses = learner.step(small, 1, 0.1, progress)
    equal = [torch.allclose(one, two, rtol=1e-4, atol=1e-6) for one, two in zip(*gradients, strict=True)]
    assert (losses == pytest.approx(expected, rel=1e-5)) is exact
    assert all(equal) is exact


def test_the_gradients_norm_is_limited(tmp_path: Path) -> None:
    trainer = tiny_trainer(replace(plain(tiny_run(tmp_path)), clip_gradient=1e-3))
    norms: list[float] = []

    def record() -> None:
        gradients = [p.grad for p in trainer.learner.model.parameters() if p.grad is not None]
        norms.append(float(torch.stack([g.norm() for g in gradients]).norm()))

    trainer.learner.optimizer.step = record
    trainer.run()
    assert max(norms) <= 1.001e-3


def test_a_checkpoint_of_another_model_is_refused(tmp_path: Path) -> None:
    tiny_trainer(tiny_run(tmp_path)).run()
    config = tiny_run(tmp_path)
    other = tiny_trainer(replace(config, model=replace(config.model, classes=5)))
    with pytest.raises(ToodError, match="another model"):
        other.load_state_dict(read_checkpoint(tmp_path))


def test_checkpoints_are_written_from_time_to_time(tmp_path: Path) -> None:
    trainer = tiny_trainer(replace(tiny_run(tmp_path), checkpoint_minutes=0, keep=3, epochs=2))
    trainer.run()
    assert len(list(tmp_path.glob("checkpoint-*.pt"))) == 2
    assert not list(tmp_path.glob(".*")), "no temporary file is left"


def test_an_epoch_of_one_batch(tmp_path: Path) -> None:
    trainer = tiny_trainer(tiny_run(tmp_path), loader=squares_loader(2, 2))
    assert trainer.run().steps == 3
