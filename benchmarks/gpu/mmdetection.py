"""MMDetection's own step of TOOD R50 beside ours, where its packages are: `make bench-peers` sets them up."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

from benchmarks.gpu.bench import Bench, Left
from benchmarks.gpu.clock import seconds_a_call
from benchmarks.gpu.throughput import OBJECTS
from benchmarks.gpu.work import MAIN, batch_of, named_run
from benchmarks.rows_network import TrainingStep
from tood.input import normalise

ROOT = Path(__file__).parents[2]
BATCHES = (2, 8)


def run(bench: Bench) -> None:
    """Both by the same clock."""
    python = bench.settings.peers / "python"
    command = [str(python)] if python.exists() else [sys.executable]
    if not python.exists() and not all(map(find_spec, ("mmdet", "mmcv"))):
        raise Left(
            "MMDetection and mmcv are not installed; `make bench-peers` compiles them on a machine that has nvcc"
        )
    if not bench.on_gpu:
        raise Left("only measured on a GPU")
    table = "images a second, 800 x 1344, step alone"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT / "src"), str(ROOT)])}
    command += ["-m", "benchmarks.peers.mmdetection_gpu", *map(str, BATCHES)]
    done = subprocess.run(
        command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True, timeout=bench.left, check=False
    )
    figures = [json.loads(line) for line in done.stdout.splitlines() if line.startswith('{"name"')]
    for figure in figures:
        bench.cell(table, figure["name"], "MMDetection 3.3", figure["value"], "")
    if done.returncode or not figures:
        raise RuntimeError(
            f"MMDetection's process ended with code {done.returncode}, {len(figures)} figures taken: its operators may "
            "lack their CUDA part"
        )
    config = named_run(MAIN, bench.device)
    step = TrainingStep(config, bench.device)
    for count in BATCHES:
        for precision in ("fp32", "bf16"):
            batch = batch_of(config.model.input, (OBJECTS,) * count, config.model.classes, bench.device)
            images = normalise(batch.images, batch.sizes, config.model.input)
            with bench.trying(f"{count} images in {precision}"):
                seconds = seconds_a_call(
                    lambda x=images, t=batch.targets, half=precision == "bf16": step(x, t, half), bench.device
                )
                bench.cell(table, f"{precision}, {count} images", "ours", count / seconds, "")
