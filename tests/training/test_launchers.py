"""The command line under torchrun, as a person starts it on several GPUs."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from benchmarks.interruptions import NARROW_SETTINGS
from typer.testing import CliRunner

import tood
from tood.cli import app
from tood.errors import quoted
from tood.training.checkpoint import read_checkpoint
from training.pictures import coco_folder
from training.test_stops import last_step

SMALL = [f"--set={setting}" for setting in (*NARROW_SETTINGS, "model.postprocess.score_threshold=0", "log_every=1")]


def torchrun(*arguments: object, prefix: tuple[str, ...] = ()) -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONPATH": str(Path(tood.__file__).parents[1]), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "tood"]
    return subprocess.Popen(
        [*prefix, *command, *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
        start_new_session=True,
    )


def test_ctrl_c_resuming_and_the_detections_of_a_test_split(tmp_path: Path) -> None:
    data, out = coco_folder(tmp_path / "data"), tmp_path / "run"
    options = ["--model", "tood_tiny", "--size", "64", "--workers", "1", "--batch-size", "2"]
    launched = torchrun("train", *options, "--data", data, "--out", out, "--epochs", "100000", *SMALL)
    while not (out / "metrics.csv").is_file() or (out / "metrics.csv").read_text().count("\n") < 4:
        assert launched.poll() is None, launched.communicate()
        time.sleep(0.1)
    os.killpg(launched.pid, signal.SIGINT)  # as a terminal does: the launcher, its processes and their workers
    text, _ = launched.communicate()
    assert text.count("Stopped after") == 1
    assert f"To go on: tood train --resume --out {quoted(out)}" in text
    assert (out / "checkpoint.pt").is_file()

    # One process with the same images a step goes on where two have stopped.
    steps = (out / "metrics.csv").read_text().count("\n")
    more = ["train", "--resume", "--out", str(out), "--batch-size", "4", "--epochs", str(steps // 2 + 2)]
    resumed = CliRunner().invoke(app, more)
    assert resumed.exit_code == 0, resumed.output
    assert "resuming at epoch" in resumed.stdout

    content = json.loads((data / "annotations/instances_val2017.json").read_text())
    del content["annotations"]
    (data / "annotations/image_info_test-dev2017.json").write_text(json.dumps(content))
    (data / "annotations/image_info_test2017.json").write_text(json.dumps(content))
    (data / "val2017").rename(data / "test2017")
    (data / "annotations/instances_val2017.json").unlink()
    arguments = ["eval", "--model", str(out / "last.safetensors"), "--data", str(data), "--split", "test-dev2017"]
    launched = torchrun(*arguments, "--batch-size", 2, "--workers", 0, "--out", tmp_path / "two")
    alone = CliRunner().invoke(app, [*arguments, "--batch-size", "2", "--workers", "0", "--out", str(tmp_path / "one")])
    assert alone.exit_code == 0, alone.output
    text, errors = launched.communicate()
    assert launched.returncode == 0, errors
    assert text.count("Detections: ") == 1
    found = json.loads((tmp_path / "one/detections.json").read_text())
    assert {detection["image_id"] for detection in found} == set(range(1, 7))
    assert {detection["category_id"] for detection in found} <= {3, 7}
    assert set(found[0]) == {"image_id", "category_id", "bbox", "score"}
    assert json.loads((tmp_path / "two/detections.json").read_text()) == found
    assert not (tmp_path / "two/metrics.json").exists()


def test_torchrun_under_nohup_ends_with_a_checkpoint_when_its_terminal_is_closed(tmp_path: Path) -> None:
    """`nohup` lets torchrun ignore SIGHUP, which then listens to it all the same and passes it on."""
    data, out = coco_folder(tmp_path / "data"), tmp_path / "run"
    options = ["--model", "tood_tiny", "--size", "64", "--workers", "0", "--batch-size", "2"]
    options += ["--data", str(data), "--out", str(out), "--epochs", "100000", *SMALL]
    launched = torchrun("train", *options, prefix=("nohup",))
    while not (out / "metrics.csv").is_file() or (out / "metrics.csv").read_text().count("\n") < 4:
        assert launched.poll() is None, launched.communicate()
        time.sleep(0.1)
    os.killpg(launched.pid, signal.SIGHUP)
    text, errors = launched.communicate()
    assert launched.returncode != 0
    assert f"To go on: tood train --resume --out {quoted(out)}, launched with 2 processes as before" in text + errors
    assert read_checkpoint(out)["position"]["step"] == last_step(out) > 0
    assert not list(out.glob(".*"))


def test_a_mistake_is_said_once(tmp_path: Path) -> None:
    launched = torchrun("train", "--model", "tood_tiny", "--data", tmp_path / "nowhere", "--device", "cpu", *SMALL)
    _, errors = launched.communicate()
    assert launched.returncode != 0
    assert errors.count("tood: ") == 1
    assert "nowhere" in errors
