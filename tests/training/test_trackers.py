"""Figures as the services keep them: TensorBoard's files, Weights & Biases offline, an MLflow store in a folder."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from tood.errors import ToodError
from tood.training.checkpoint import read_checkpoint
from tood.training.trackers import Trackers
from training.fakes import FakeScores, tiny_run, tiny_trainer


def test_tensorboard_has_the_losses_and_the_ap(tmp_path: Path) -> None:
    tiny_trainer(tiny_run(tmp_path), lambda model: FakeScores(0.5)).run()
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert [event.step for event in events.Scalars("train/loss_cls")] == list(range(1, 10))
    assert [(event.step, event.value) for event in events.Scalars("val/AP")] == [(3, 0.5), (6, 0.5), (9, 0.5)]


def test_mlflow_has_the_configuration_and_goes_on_with_the_same_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mlflow = pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")  # its database needs more packages than its client
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"{tmp_path.as_uri()}/mlruns")
    config = replace(tiny_run(tmp_path / "a run"), trackers=("mlflow",), epochs=2)
    tiny_trainer(config, lambda model: FakeScores(0.5)).run()
    second = tiny_trainer(replace(config, epochs=3), lambda model: FakeScores(0.5))
    second.load_state_dict(read_checkpoint(tmp_path / "a run"))
    second.run()
    client = mlflow.MlflowClient()
    (run,) = client.search_runs([client.get_experiment_by_name("tood").experiment_id])
    assert run.info.run_name == "a run"
    assert run.data.params["optimizer.lr"] == "0.001"
    assert [point.step for point in client.get_metric_history(run.info.run_id, "train/loss")] == list(range(1, 10))


def test_wandb_keeps_the_run_on_the_disk_when_offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    monkeypatch.setenv("WANDB__SERVICE_WAIT", "600")  # seconds for its service to start, 30 by default
    monkeypatch.setenv("WANDB_INIT_TIMEOUT", "600")
    config = replace(tiny_run(tmp_path / "run"), trackers=("wandb",), epochs=1)
    tiny_trainer(config).run()
    (written,) = (tmp_path / "run/wandb").glob("offline-run-*/run-*.wandb")
    patience = time.monotonic() + 600
    while b"loss_cls" not in written.read_bytes():  # its service writes after the run has ended
        assert time.monotonic() < patience
        time.sleep(0.1)
    assert read_checkpoint(tmp_path / "run")["trackers"]["wandb"] in written.name


def test_a_tracker_that_is_not_there_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ToodError, match=r"trackers has wandb, which is not installed: pip install 'tood\[wandb\]'"):
        Trackers(["wandb"], tmp_path, {}, 0, {})
