"""A run that nobody gave a length goes on until its AP stays, then lets the rate fall to its end."""

from __future__ import annotations

import csv
import os
import signal
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from benchmarks.interruptions import NARROW_SETTINGS
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from tood.cli import app
from tood.configuration import load
from tood.errors import ToodError
from tood.training import CONFIG, CosineScheduleConfig, RunConfig, run_config
from tood.training.checkpoint import read_checkpoint
from tood.training.length import COOL_DOWN, LEAST_EPOCHS, MOST_IMAGES, PATIENCE, with_length
from tood.training.schedule import Clock, Turn
from training.fakes import FakeScores, tiny_run, tiny_trainer
from training.pictures import coco_folder

SETTINGS = [f"--set={setting}" for setting in (*NARROW_SETTINGS, "trackers=[]", "log_every=1")]


# --- what a run without a length gets --------------------------------------------------------------------------------


@given(st.integers(1, 200_000), st.none() | st.integers(1, 20_000))
def test_a_run_without_a_length_shows_enough_images_and_is_evaluated_in_time(images: int, validation: int) -> None:
    config = with_length(run_config("tood_tiny"), images, validation)
    assert config.epochs is not None
    assert config.epochs >= LEAST_EPOCHS
    assert MOST_IMAGES <= config.epochs * images <= max(MOST_IMAGES + images, LEAST_EPOCHS * images)
    assert 1 <= config.evaluate_every <= config.epochs
    seen = validation is not None
    assert (config.patience, config.cool_down) == ((PATIENCE, COOL_DOWN) if seen else (None, None))


@pytest.mark.parametrize("name", ["tood_tiny", "tood_lite0"])
def test_a_length_that_was_given_stays(name: str) -> None:
    for given_one in ({"epochs": 7}, {"minutes": 3.0}, {"epochs": 7, "patience": 2}):
        config = replace(run_config(name), **given_one)
        assert with_length(config, 100, 20) == config


def test_what_was_set_beside_it_stays() -> None:
    config = replace(run_config("tood_lite0"), patience=9, cool_down=0.0, evaluate_every=50)
    resolved = with_length(config, 100, 20)
    assert (resolved.patience, resolved.cool_down, resolved.evaluate_every) == (9, 0.0, 50)


def test_the_published_recipes_have_their_lengths() -> None:
    config = run_config("tood_r50_fpn_1x")
    assert with_length(config, 100, 20) == config
    assert config.epochs == 12


@pytest.mark.parametrize("share", [-0.1, 1.5, float("nan")])
def test_a_cool_down_that_is_no_share_is_refused(share: float) -> None:
    with pytest.raises(ToodError, match=r"cool_down is .*: expected a number from 0 to 1"):
        RunConfig(cool_down=share)


# --- the clock -------------------------------------------------------------------------------------------------------


@given(st.integers(1, 5000), st.integers(0, 5000), st.floats(0.01, 1))
def test_after_its_turn_a_run_ends_after_a_share_of_what_it_took(total: int, turned: int, share: float) -> None:
    turned = min(turned, total)
    plain, clock = Clock(total, None), Clock(total, None, turn=Turn(turned, 0.0, share))
    ways = [clock.progress(step) for step in range(total + 1)]
    assert ways == sorted(ways)
    assert ways[-1] == 1
    assert ways[: turned + 1] == [plain.progress(step) for step in range(turned + 1)]
    end = ways.index(1)
    assert turned + share * turned - 1e-6 <= end <= turned + share * turned + 1 or end == total


@given(st.floats(0.1, 100), st.floats(0.01, 1), st.floats(0.01, 1))
def test_so_does_one_by_minutes(minutes: float, turned: float, share: float) -> None:
    start = minutes * 60 * turned
    end = min(start * (1 + share), minutes * 60)
    turn = Turn(1, start, share)
    at = [Clock(0, minutes, seconds, turn) for seconds in (start, (start + end) / 2, end * (1 + 1e-9))]
    assert at[0].progress(5) == pytest.approx(turned)
    assert at[1].progress(5) == pytest.approx((1 + turned) / 2) or start == end
    assert at[2].progress(5) == pytest.approx(1)
    assert at[0].seconds_left(5) == pytest.approx(end - start)


# --- the run ---------------------------------------------------------------------------------------------------------

# Nine steps in three epochs up to the highest AP, two evaluations without a rise, then 4 more steps (a quarter of 15).
SCORES = (0.1, 0.2, 0.5, 0.5, 0.4, 0.6)


def plateau_run(out: Path) -> RunConfig:
    schedule = CosineScheduleConfig(warm_up_steps=0, final_ratio=0.01)
    return replace(tiny_run(out), epochs=100, patience=2, cool_down=0.25, schedule=schedule, checkpoint_minutes=0)


def rates(out: Path) -> list[float]:
    with (out / "metrics.csv").open() as file:
        return [float(row["lr"]) for row in csv.DictReader(file) if row["lr"]]


def weights(out: Path) -> dict[str, torch.Tensor]:
    return read_checkpoint(out)["model"]  # type: ignore[no-any-return]


def test_at_a_plateau_the_rate_falls_to_its_end_and_the_run_ends(tmp_path: Path) -> None:
    scores = iter([*SCORES, 0.7])
    trainer = tiny_trainer(plateau_run(tmp_path), lambda model: FakeScores(next(scores)))
    result = trainer.run()
    assert result.steps == 15 + 4
    assert (result.best_ap, result.ap) == (0.7, 0.7), "evaluated at its end, and after the epoch before"
    seen = rates(tmp_path)
    assert min(seen[:15]) > 0.99 * max(seen) * 0.9
    assert seen[-1] < 0.2 * seen[14]
    assert trainer.finished
    with pytest.raises(ToodError, match="give a higher patience to go on with it"):
        trainer.require_unfinished()


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> dict[str, torch.Tensor]:
    """The weights of the run that nobody stopped."""
    out = tmp_path_factory.mktemp("whole")
    assert tiny_trainer(plateau_run(out), by_epoch()).run().steps == 19
    return weights(out)


@pytest.mark.parametrize("stopped", [4, 14, 16, 18])
def test_it_ends_so_too_when_it_was_stopped_and_goes_on(
    tmp_path: Path, uninterrupted: dict[str, torch.Tensor], stopped: int
) -> None:
    config = plateau_run(tmp_path / "run")
    first = tiny_trainer(config, by_epoch())
    normal = first._step

    def ended(group: list, progress: float) -> None:  # type: ignore[type-arg]
        normal(group, progress)
        if first.position.step == stopped:
            os.kill(os.getpid(), signal.SIGTERM)

    first._step = ended  # type: ignore[method-assign]
    assert first.run().interrupted_by == signal.SIGTERM
    second = tiny_trainer(config, by_epoch(first.position.evaluations))
    second.load_state_dict(read_checkpoint(tmp_path / "run"))
    assert second.run().steps == 19
    resumed = weights(tmp_path / "run")
    assert resumed.keys() == uninterrupted.keys()
    for name, tensor in uninterrupted.items():
        assert torch.equal(tensor, resumed[name]), name


def by_epoch(done: int = 0):  # type: ignore[no-untyped-def]
    scores = iter([*SCORES, 0.7][done:])
    return lambda model: FakeScores(next(scores))


def test_a_higher_patience_takes_the_turn_back(tmp_path: Path) -> None:
    config = plateau_run(tmp_path)
    tiny_trainer(config, by_epoch()).run()
    longer = tiny_trainer(replace(config, patience=50, epochs=8), lambda model: FakeScores(0.1))
    longer.load_state_dict(read_checkpoint(tmp_path))
    assert not longer.finished
    assert longer.run().steps == 24


def test_without_a_cool_down_patience_ends_a_run_at_once(tmp_path: Path) -> None:
    result = tiny_trainer(replace(plateau_run(tmp_path), cool_down=None), by_epoch()).run()
    assert result.steps == 15


def test_the_command_without_a_length_ends_at_a_plateau_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tood.training.length.MOST_IMAGES", 60)
    monkeypatch.setattr("tood.training.length.LEAST_EPOCHS", 10)
    monkeypatch.setattr("tood.training.length.IMAGES_BETWEEN", 6)
    monkeypatch.setattr("tood.training.length.IMAGES_EACH", 0)
    monkeypatch.setattr("tood.evaluation.evaluate_detections", lambda found, truth: FakeScores(0.3))
    data, out = coco_folder(tmp_path / "data"), tmp_path / "run"
    options = ["--model", "tood_tiny", "--size", "32", "--workers", "0", "--batch-size", "2", "--device", "cpu"]
    command = ["train", "--data", str(data), "--out", str(out), "--lr", "1e-9", *options, *SETTINGS]
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 0, result.output
    said = " ".join(result.output.split())
    assert "recipe: small, 10 epochs" in said
    assert "until 4 evaluations bring no higher AP, at most 10 epochs" in said
    assert "AP has not risen in 4 evaluations: from here the rate falls to its end" in said
    saved = load(out / CONFIG, RunConfig)
    assert (saved.epochs, saved.patience, saved.cool_down) == (10, 4, 0.25)
    assert 5 <= read_checkpoint(out)["position"]["epoch"] < 10


# --- an AP that never rises ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cool_down", [0.0, 0.25])
@pytest.mark.parametrize("ap", [0.0, 0.0004])
def test_a_run_whose_ap_has_never_risen_goes_on(ap: float, cool_down: float, tmp_path: Path) -> None:
    config = replace(plateau_run(tmp_path), epochs=9, cool_down=cool_down)
    trainer, said = tiny_trainer(config, lambda model: FakeScores(ap)), []
    trainer.display.say = said.append  # type: ignore[method-assign]
    result = trainer.run()
    assert result.epochs == 9
    assert trainer.position.plateau is None
    told = [line for line in said if "which is no plateau" in line]
    assert len(told) == 1
    assert told[0].startswith("AP is 0.000 in all 3 evaluations, which is no plateau: the run goes on")
    assert not any("ends early" in line or "from here the rate falls" in line for line in said)


def test_once_it_has_risen_a_plateau_is_one(tmp_path: Path) -> None:
    scores = iter([0.0, 0.0, 0.0, 0.0, 0.1, 0.1, 0.05, 0.9])
    trainer, said = tiny_trainer(replace(plateau_run(tmp_path), cool_down=0.0), lambda _: FakeScores(next(scores))), []
    trainer.display.say = said.append  # type: ignore[method-assign]
    assert trainer.run().epochs == 7
    assert sum("which is no plateau" in line for line in said) == 1
    assert "the run ends early: 2 evaluations brought no higher AP (patience)" in said
