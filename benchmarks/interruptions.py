"""Kills a training run again and again, and compares what it ends with to a run that was left alone: bit for bit.

python -m benchmarks.interruptions --kills 20                  # SIGKILL to one process at random moments
python -m benchmarks.interruptions --kills 20 --processes 2    # and to two, with their launcher
python -m benchmarks.interruptions --kills 2 --processes 2 --elastic    # to one of two; torchrun restarts them
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
from contextlib import suppress
from pathlib import Path

import torch
from safetensors.torch import load_file

from tood.data.digits import DigitsConfig, write_digits
from tood.errors import ToodError
from tood.training.checkpoint import newest_checkpoint, parse_checkpoint, read_checkpoint

# A network that a second trains; the tests of the command line take it too.
NARROW_SETTINGS = (
    "model.backbone.width=8",
    "model.backbone.stem_width=8",
    "model.neck.width=8",
    "model.head.width=8",
    "model.head.norm_groups=2",
    "model.head.interactive_layers=2",
)
SETTINGS = (
    *NARROW_SETTINGS,
    "checkpoint_minutes=0",  # after every step: many a kill meets one half-written
    "keep=2",
    "log_every=1",
    "trackers=[]",
)

# Seconds that a run of this size never takes.
LONGEST = 600


class Run:
    """The same command again and again, until its run is complete."""

    def __init__(self, data: Path, out: Path, processes: int, elastic: int, epochs: int) -> None:
        self.out = out
        launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
        launcher += ["--max-restarts", str(elastic)] if elastic else []
        options = ["--model", "tood_tiny", "--size", "64", "--workers", "1", "--device", "cpu", "--precision", "fp32"]
        options += ["--batch-size", str(4 // processes), "--epochs", str(epochs), "--resume", "auto"]
        command = ["-m", "tood", "train", "--data", str(data), "--out", str(out), *options]
        settings = [f"--set={setting}" for setting in SETTINGS]
        self.command = [sys.executable, *(launcher if processes > 1 else []), *command, *settings]

    def start(self) -> subprocess.Popen[str]:
        """In a session of its own, so that all of it can be killed at once."""
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        return subprocess.Popen(
            self.command,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=environment,
            start_new_session=True,
        )

    def finish(self) -> None:
        """Lets it go to its end."""
        process = self.start()
        try:
            text, _ = process.communicate(timeout=LONGEST)
        except subprocess.TimeoutExpired:
            kill_all(process, self.out)
            raise SystemExit(f"the run stands still: it did not end within {LONGEST} seconds") from None
        if process.returncode:
            raise SystemExit(f"the run failed with exit code {process.returncode}:\n{text}")

    @property
    def step(self) -> int:
        """Of its newest checkpoint, which is readable whenever one looks."""
        found = newest_checkpoint(self.out)
        return 0 if found is None else parse_checkpoint(*found)["position"]["step"]


def kill_all(process: subprocess.Popen[str], out: Path) -> None:
    """SIGKILL to the launcher, the training processes and their loaders."""
    os.killpg(process.pid, signal.SIGKILL)
    while remaining := members(out):  # torchrun gives each of its processes a session of its own
        for other in remaining:
            with suppress(ProcessLookupError):
                os.kill(other, signal.SIGKILL)
        time.sleep(0.05)
    process.communicate()


def kill_one(rng: random.Random, out: Path) -> None:
    """SIGKILL to a training process or a loader; returns when torchrun has ended the others of its attempt."""
    attempt = members(out)
    if attempt:
        os.kill(rng.choice(attempt), signal.SIGKILL)
    while set(attempt) & set(members(out)):
        time.sleep(0.05)


def members(out: Path) -> list[int]:
    """Process ids of whatever was started with this folder."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                arguments = (entry / "cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            if str(out).encode() in arguments and b"tood" in arguments and b"torch.distributed.run" not in arguments:
                found.append(int(entry.name))
    return found


def wait_for_step(run: Run, process: subprocess.Popen[str], step: int) -> None:
    """Until a checkpoint of a later step is there, or the run has ended."""
    while process.poll() is None and run.step <= step:
        time.sleep(0.02)


def survive(data: Path, folder: Path, kills: int, processes: int, elastic: bool, epochs: int, seed: int) -> list[int]:
    """Trains once untouched and once killed; the steps at which it was.

    Raises:
        SystemExit: if the two end differently, or a checkpoint could not be read.
    """
    rng = random.Random(seed)
    alone, killed = (Run(data, folder / name, processes, 0, epochs) for name in ("alone", "killed"))
    alone.finish()
    last_step, steps = alone.step, []
    if elastic:
        killed = Run(data, folder / "killed", processes, kills, epochs)
        process = killed.start()
    while len(steps) < kills:
        if not elastic:
            process = killed.start()
        try:
            wait_for_step(killed, process, steps[-1] if steps else 0)
            time.sleep(rng.uniform(0, 0.6))
            if process.poll() is not None:
                break  # it was through before all kills were spent
            if elastic:
                kill_one(rng, killed.out)
            else:
                kill_all(process, killed.out)
            steps.append(killed.step)
        except ToodError as error:
            raise SystemExit(f"an unreadable checkpoint after {len(steps)} kills: {error}") from error
    if elastic:
        text, _ = process.communicate()
        if process.returncode:
            raise SystemExit(f"torchrun gave up:\n{text}")
    else:
        killed.finish()
    compare(folder / "alone", folder / "killed", last_step)
    return steps


def compare(one: Path, two: Path, step: int) -> None:
    """Ends the program unless both runs hold the same weights, averages and moments."""
    for name in ("best.safetensors", "last.safetensors"):  # whose metadata come in any order
        if not _equal(load_file(one / name), load_file(two / name)):
            raise SystemExit(f"{name} differs")
    states = [read_checkpoint(folder) for folder in (one, two)]
    for state in states:
        assert state["position"]["step"] == step
    for part in ("model", "ema", "optimizer"):
        if not _equal(states[0][part], states[1][part]):
            raise SystemExit(f"{part} differs")


def _equal(one: object, two: object) -> bool:
    if isinstance(one, torch.Tensor):
        return isinstance(two, torch.Tensor) and torch.equal(one, two)
    if isinstance(one, dict):
        return isinstance(two, dict) and one.keys() == two.keys() and all(_equal(one[key], two[key]) for key in one)
    if isinstance(one, list):
        return isinstance(two, list) and len(one) == len(two) and all(map(_equal, one, two))
    return one == two


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--elastic", action="store_true", help="kill one process and let torchrun restart all")
    parser.add_argument("--epochs", type=int, default=0, help="length of the run; 0: as long as the kills need")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    epochs = options.epochs or 20 * options.kills
    with tempfile.TemporaryDirectory() as folder:
        data = write_digits(Path(folder) / "data", DigitsConfig(train=12, val=12, test=0))
        steps = survive(data, Path(folder), options.kills, options.processes, options.elastic, epochs, options.seed)
    if len(steps) < options.kills:
        raise SystemExit(f"the run was through after {len(steps)} kills: give more --epochs")
    print(f"killed at steps {', '.join(map(str, steps))}: the same to the last bit as the run left alone")


if __name__ == "__main__":
    main()
