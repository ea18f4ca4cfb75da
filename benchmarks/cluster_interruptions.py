"""Kills Ray runs at random moments, again and again, and compares what is left with an uninterrupted run's.

    python -m benchmarks.cluster_interruptions --kills 100

Each run is `tood predict --engine ray --resume` with two workers. At a random moment after its workers have started one
of them, or the whole run, gets SIGKILL; the next run goes on. When all is done the folder has to hold, byte for byte,
what one process gives that was never stopped, and each picture once; then it begins anew in another folder, until there
were enough kills. Those count that hit a run with work left; how many of them came before its first result is told.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import psutil
import torch
from PIL import Image

# What a whole run ends with, as some pictures cannot be read.
_BAD_PICTURES = 2


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


@dataclass(frozen=True)
class Killed:
    """What became of a run.

    Attributes:
        hit: whether a kill met it, or one of its workers, while it had work left.
        early: whether that was before its first result.
        ended: whether it ended by itself.
    """

    hit: bool
    early: bool
    ended: bool


def kill_one_run(command: Sequence[str], out: Path, chance: random.Random, whole: int) -> Killed:
    """Starts a run that is to leave so many files, and kills at one random moment."""
    before = len(parts(out))
    run = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    # One in five as soon as it has workers, the others when it has written a few results.
    further = 0 if chance.random() < 0.2 else chance.randint(1, max(1, whole // 4))
    while run.poll() is None and not (len(parts(out)) >= before + further if further else _workers(run)):
        time.sleep(0.02)
    time.sleep(chance.uniform(0, 1))
    written = len(parts(out))
    if run.poll() is None and written < whole:
        workers = _workers(run)
        if workers and chance.random() < 0.7:
            hit = _kill(chance.choice(workers))
            _, errors = run.communicate()
            if run.returncode != _BAD_PICTURES:
                raise SystemExit(f"a run whose worker was killed ended with {run.returncode}: {errors}")
            return Killed(hit, written == before, True)
        family = psutil.Process(run.pid).children(recursive=True)
        run.kill()
        for process in family:
            _kill(process)
    _, errors = run.communicate()
    if run.returncode not in (_BAD_PICTURES, -signal.SIGKILL):
        raise SystemExit(f"a run ended by itself with {run.returncode}: {errors}")
    return Killed(run.returncode != _BAD_PICTURES, written == before, run.returncode == _BAD_PICTURES)


def _workers(run: subprocess.Popen[str]) -> list[psutil.Process]:
    """The processes of a run that look at pictures."""
    try:
        return [process for process in psutil.Process(run.pid).children(recursive=True) if _is_worker(process)]
    except psutil.NoSuchProcess:
        return []


def _is_worker(process: psutil.Process) -> bool:
    try:
        return "MapWorker" in " ".join(process.cmdline())
    except psutil.Error:
        return False


def _kill(process: psutil.Process) -> bool:
    """Whether it still ran."""
    try:
        ran = process.status() not in (psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD)
        process.kill()
    except psutil.NoSuchProcess:
        return False
    return ran


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
        kills = early = rounds = 0
        while kills < asked.kills:
            out = Path(made) / f"out{rounds}"
            command = [sys.executable, "-m", "tood", "predict", str(folder), "--model", str(weights), "--resume"]
            command += ["--engine", "ray", "--workers", "2", "--threads", "1", "--precision", "fp32"]
            command += ["--device", "cpu", "--pictures-a-file", str(at_once), "--out", str(out)]
            ended = False
            while not ended:
                killed = kill_one_run(command, out, chance, len(expected))
                kills += killed.hit
                early += killed.hit and killed.early
                ended = killed.ended
                print(f"{kills} killed, {len(parts(out))} of {len(expected)} files there", flush=True)
            if parts(out) != expected:
                raise SystemExit(f"after {kills} kills the results differ from an uninterrupted run's: {out}")
            left = [path.name for path in out.iterdir() if path.name.startswith(".tood")]
            print(f"round {rounds}: equal to the uninterrupted run; unfinished files left: {len(left)}", flush=True)
            rounds += 1
    print(f"{kills} SIGKILLs in {rounds} rounds, {early} of them before the first result of their run")
    print("every result equals the uninterrupted run's, byte for byte")


if __name__ == "__main__":
    main()
