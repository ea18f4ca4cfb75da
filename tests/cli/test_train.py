"""`tood train` and `tood demo` from end to end, on pictures of a second's making."""

from __future__ import annotations

import csv
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import pytest
from benchmarks.interruptions import NARROW_SETTINGS
from rich.console import Console
from typer.testing import CliRunner, Result

import tood
from tood import configuration
from tood.cli import app
from tood.cli.demo import run_demo
from tood.data.digits import DigitsConfig
from tood.errors import quoted
from tood.training import RunConfig, SGDConfig
from tood.weights import load_weights
from training.pictures import coco_folder

# A model that a second trains.
SMALL = [f"--set={setting}" for setting in NARROW_SETTINGS]
OPTIONS = ["--model", "tood_tiny", "--size", "32", "--workers", "0", "--batch-size", "2", "--device", "cpu"]


def train(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["train", *OPTIONS, *arguments, *SMALL])


def test_training_from_the_command_line_leaves_the_best_weights(tmp_path: Path) -> None:
    data = coco_folder(tmp_path / "data")
    result = train("--data", str(data), "--epochs", "1", "--out", str(tmp_path / "run"), "--lr", "0.02", "--seed", "3")
    assert result.exit_code == 0, result.output
    assert f"Weights: {tmp_path / 'run/best.safetensors'}" in result.stdout.replace("\n", "")
    _, names = load_weights(tmp_path / "run/best.safetensors")
    assert names == ("cat", "dog")
    run = configuration.load(tmp_path / "run/config.yaml", RunConfig)
    assert (run.epochs, run.seed, run.batch_size, run.data.workers, run.model.input.short) == (1, 3, 2, 0, 32)
    assert (run.optimizer.lr, run.optimizer.lr_batch) == (0.02, None)


def test_a_dataset_in_data_coco_is_found_and_runs_are_numbered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    coco_folder(tmp_path / "data/coco")
    result = train("--epochs", "1", "--set", "optimizer.kind=sgd")
    assert result.exit_code == 0, result.output
    run = configuration.load(tmp_path / "runs/tood_tiny-1/config.yaml", RunConfig)
    assert isinstance(run.optimizer, SGDConfig)
    assert (tmp_path / "runs/tood_tiny-1/best.safetensors").is_file()
    again = CliRunner().invoke(app, ["train", "--config", "runs/tood_tiny-1/config.yaml", "--epochs", "2"])
    assert again.exit_code == 0, again.output
    assert configuration.load(tmp_path / "runs/tood_tiny-2/config.yaml", RunConfig).epochs == 2
    more = CliRunner().invoke(app, ["train", "--resume", "--epochs", "3"])
    assert more.exit_code == 0, more.output
    assert "resuming at epoch 3" in more.stdout


def test_a_signal_ends_in_a_checkpoint_and_resuming_completes_the_run(tmp_path: Path) -> None:
    data, out = coco_folder(tmp_path / "data"), tmp_path / "run"
    arguments = [*OPTIONS, "--data", str(data), "--out", str(out), "--epochs", "100000", *SMALL]
    environment = {**os.environ, "PYTHONPATH": str(Path(tood.__file__).parents[1]), "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        [sys.executable, "-m", "tood", "train", *arguments], stdout=subprocess.PIPE, text=True, env=environment
    )
    while not (out / "metrics.csv").is_file() or (out / "metrics.csv").read_text().count("\n") <= 2:
        assert process.poll() is None
        time.sleep(0.1)
    process.send_signal(signal.SIGTERM)
    text, _ = process.communicate(timeout=600)
    assert process.returncode == 128 + signal.SIGTERM
    assert f"To go on: tood train --resume --out {quoted(out)}" in text
    assert (out / "checkpoint.pt").is_file()
    assert (out / "last.safetensors").is_file()
    # Wherever in an epoch the signal came: what is left of it, another one, and nothing after that.
    further = str(math.ceil(reached_epochs(out)) + 1)
    resumed = CliRunner().invoke(app, ["train", "--resume", "--out", str(out), "--epochs", further])
    assert resumed.exit_code == 0, resumed.output
    assert reached_epochs(out) == float(further)
    again = CliRunner().invoke(app, ["train", "--resume", "--out", str(out), "--epochs", further])
    assert again.exit_code == 2
    assert "is complete" in again.stderr


def reached_epochs(run: Path) -> float:
    with (run / "metrics.csv").open() as rows:
        return float(list(csv.DictReader(rows))[-1]["epoch"])


def test_the_demo_prints_its_ap_and_leaves_its_pictures(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "demo"
    run_demo(out, 0.03, DigitsConfig(train=8, val=2, test=3), Console(width=200))
    text = capsys.readouterr().out
    assert "Test split: AP 0." in text
    assert "AP75" in text
    for name in ("detections.png", "curves.png"):
        assert str(out / name) in text
        picture = cv2.imread(str(out / name))
        assert picture is not None
        assert min(picture.shape[:2]) > 100
    assert load_weights(out / "best.safetensors")[1] == tuple("0123456789")
