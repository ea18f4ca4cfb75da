"""Benchmarks that are checks too, run small: by hand they run in full."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from benchmarks import interruptions

import tood

ROOT = Path(__file__).parents[1]
ENVIRONMENT = {
    **os.environ,
    "PYTHONPATH": f"{Path(tood.__file__).parents[1]}{os.pathsep}{ROOT}",
    "OMP_NUM_THREADS": "1",
}


def run(script: str, *options: str) -> str:
    command = [sys.executable, "-m", f"benchmarks.{script}", *options]
    done = subprocess.run(command, cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_a_step_on_5000_boxes_in_each_of_8_images_takes_little_memory() -> None:
    assert "the assigner's extra memory" in run("dense_scene")


@pytest.mark.no_cover  # it waits for what others do
@pytest.mark.parametrize("options", ["--kills 1 --epochs 8", "--kills 1 --processes 2 --elastic --epochs 8"])
def test_a_killed_run_ends_bit_for_bit_like_one_left_alone(
    options: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("PYTHONPATH", ENVIRONMENT["PYTHONPATH"])
    monkeypatch.setattr(sys, "argv", ["interruptions", "--seed", "1", *options.split()])
    interruptions.main()
    assert "the same to the last bit" in capsys.readouterr().out


@pytest.mark.parametrize("truths", [500, 999, 5000])
def test_the_assigner_s_extra_memory_is_small(truths: int) -> None:
    script = f"""
import torch
from benchmarks.scenes import LARGE, scene
from benchmarks.timing import peak_growth
from tood.alignment import TaskAlignedAssigner
from tood.structures import Targets
torch.set_num_threads(1)
s = scene(*LARGE, {truths})
targets = [Targets(s.truth_boxes, s.truth_labels, torch.zeros({truths}, dtype=torch.bool))]
few = [Targets(s.truth_boxes[:1], s.truth_labels[:1], torch.zeros(1, dtype=torch.bool))]
assign = TaskAlignedAssigner()
assign(s.scores[None], s.boxes[None], s.centres, few)  # what libraries set up once
print(peak_growth(lambda: assign(s.scores[None], s.boxes[None], s.centres, targets)))
"""
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    print(done.stdout)
    assert float(done.stdout) < 50  # MiB; all pairs would take 43 to 430 each temporary
