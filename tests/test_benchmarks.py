"""Benchmarks that are checks too, run small: by hand they run in full."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

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


@pytest.mark.parametrize("options", ["--kills 1 --epochs 8", "--kills 1 --processes 2 --elastic --epochs 8"])
def test_a_killed_run_ends_bit_for_bit_like_one_left_alone(options: str) -> None:
    assert "the same to the last bit" in run("interruptions", "--seed", "1", *options.split())
