"""Kills Ray runs at random moments, again and again, and compares what is left with an uninterrupted run's.

    python -m benchmarks.cluster_interruptions --kills 100

Each run is `tood predict --engine ray --resume` with two workers. At a random moment one of its workers, or the whole
run, gets SIGKILL; the next run goes on. When all is done the folder has to hold, byte for byte, what one process gives
that was never stopped, and each picture once; then it begins anew in another folder, until there were enough kills.
"""

from __future__ import annotations

import argparse
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import psutil
import torch
from PIL import Image


def pictures(folder: Path, count: int) -> None:
    """Pictures of noise, every tenth of them broken."""
    noise = np.random.default_rng(0)
    folder.mkdir(parents=True)
    for number in range(count):
        path = folder / f"{number:05}.png"
        Image.fromarray(noise.integers(0, 255, (160, 240, 3), np.uint8)).save(path)
        if number % 10 == 3:
            path.write_bytes(path.read_bytes()[:60])


def small_model(path: Path) -> None:
    """An untrained model that finds something everywhere."""
    from tood.models import build_model
    from tood.weights import save_weights
    from tood.zoo import named_models

    torch.manual_seed(0)
    model = build_model(named_models()["tood_tiny"].config())
    torch.nn.init.constant_(model.head.classifier.bias, 1.0)
    save_weights(path, model, [f"class {number}" for number in range(80)])


def uninterrupted(out: Path, weights: Path, folder: Path, at_once: int) -> dict[str, bytes]:
    """The files of a run in this process."""
    from tood.clusters import Place, ShardWorker, ShippedModel, WorkerConfig, make_plan

    plan = make_plan(Place.of(str(out)), [str(folder)], {}, at_once)
    worker = ShardWorker(plan, ShippedModel.of(str(weights)), WorkerConfig(threads=1))
    for number in range(len(plan.shards)):
        worker(number)
    return parts(out)


def parts(out: Path) -> dict[str, bytes]:
    """The results that are there."""
    return {path.name: path.read_bytes() for path in out.glob("part-*.parquet")}


def kill_one_run(command: Sequence[str], out: Path, chance: random.Random, whole: int) -> tuple[int, bool]:
    """Starts a run and kills at one random moment; gives how many were killed, and whether it ended by itself."""
    run = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    # From the first result of this run on, or from its start: both are moments.
    before = len(parts(out))
    wanted = chance.choice([before, before + 1, before + chance.randint(1, max(1, whole // 4))])
    while run.poll() is None and len(parts(out)) < wanted:
        time.sleep(0.02)
    time.sleep(chance.uniform(0, 1))
    if run.poll() is not None:
        return 0, run.returncode == 0
    family = psutil.Process(run.pid).children(recursive=True)
    workers = [process for process in family if _is_worker(process)]
    if workers and chance.random() < 0.7:
        _kill(chance.choice(workers))
        _, errors = run.communicate()
        if run.returncode:
            raise SystemExit(f"a run whose worker was killed ended with {run.returncode}: {errors}")
        return 1, True
    for process in [psutil.Process(run.pid), *family]:
        _kill(process)
    run.communicate()
    return 1, False


def _is_worker(process: psutil.Process) -> bool:
    try:
        return "MapWorker" in " ".join(process.cmdline())
    except psutil.Error:
        return False


def _kill(process: psutil.Process) -> None:
    try:
        process.kill()
    except psutil.NoSuchProcess:
        return


def main(arguments: Sequence[str] | None = None) -> None:
    """Kills as often as asked, and compares."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--pictures", type=int, default=120)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args(arguments)
    chance, at_once = random.Random(asked.seed), 4
    os.environ.pop("RAY_ADDRESS", None)
    with tempfile.TemporaryDirectory() as made:
        folder, weights = Path(made) / "photos", Path(made) / "model.safetensors"
        pictures(folder, asked.pictures)
        small_model(weights)
        expected = uninterrupted(Path(made) / "whole", weights, folder, at_once)
        kills = rounds = 0
        while kills < asked.kills:
            out = Path(made) / f"out{rounds}"
            command = [sys.executable, "-m", "tood", "predict", str(folder), "--model", str(weights), "--resume"]
            command += ["--engine", "ray", "--workers", "2", "--threads", "1", "--precision", "fp32"]
            command += ["--device", "cpu", "--pictures-a-file", str(at_once), "--out", str(out)]
            ended = False
            while not ended:
                killed, ended = kill_one_run(command, out, chance, len(expected))
                kills += killed
                print(f"{kills} killed, {len(parts(out))} of {len(expected)} files there", flush=True)
            if parts(out) != expected:
                raise SystemExit(f"after {kills} kills the results differ from an uninterrupted run's: {out}")
            left = [path.name for path in out.iterdir() if path.name.startswith(".tood")]
            print(f"round {rounds}: equal to the uninterrupted run; unfinished files left: {len(left)}", flush=True)
            rounds += 1
    print(f"{kills} SIGKILLs in {rounds} rounds: every result equals the uninterrupted run's, byte for byte")


if __name__ == "__main__":
    main()
