"""How threads that wait should wait: `python -m benchmarks.busy`, alone and beside spinning processes.

Each way is a value of GOMP_SPINCOUNT, which says how long a thread of PyTorch's OpenMP spins before it sleeps: 300000
is what it does when told nothing ("before"), what `tood` sets is "after". Every measurement is a process of its own;
ways take turns, so that a slow minute of the machine meets them all. Per way: the median and the fastest of the
repeats, and the CPU's seconds. It asks for a machine that is quiet but for this; on one that is not, add --repeats.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tood.machine import SPINS, usable_cores

BEFORE = 300_000
PICTURES, PICTURE_SIDE, STEPS = 100, 256, 20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--spins", default=f"{BEFORE},{SPINS}", help="ways to compare, separated by commas")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--pictures", type=int, default=PICTURES)
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--beside", default="0,2", help="numbers of spinning processes")
    parser.add_argument("--only", choices=["predict", "train"], help="measure only this")
    parser.add_argument("--measure", choices=["predict", "train"], help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        measured = _predict(options.pictures) if options.measure == "predict" else _train(options.steps)
        print(json.dumps({"seconds": measured, "cpu": time.process_time()}))
        return
    what = {"predict": f"{options.pictures} pictures predicted", "train": f"{options.steps} steps trained"}
    spins = [int(number) for number in options.spins.split(",")]
    print(f"{usable_cores()} cores, load {os.getloadavg()[0]:.1f} at the start")
    for beside in [int(number) for number in options.beside.split(",")]:
        for kind in [options.only] if options.only else ("predict", "train"):
            found: dict[int, list[tuple[float, float]]] = {spin: [] for spin in spins}
            with _spinning(beside):
                for _ in range(options.repeats):
                    for spin in spins:
                        found[spin].append(_in_process(kind, spin, options.pictures, options.steps))
            print(f"\n{what[kind]}, beside {beside} spinning processes")
            for spin, values in found.items():
                seconds, cpu = zip(*values, strict=True)
                middle, first = statistics.median(seconds), statistics.median(s for s, _ in found[spins[0]])
                print(
                    f"  GOMP_SPINCOUNT={spin:<7} median {middle:6.2f} s ({100 * (middle / first - 1):+.1f} %), "
                    f"fastest {min(seconds):6.2f} s, CPU {statistics.median(cpu):6.2f} s",
                    flush=True,
                )


@contextmanager
def _spinning(count: int) -> Iterator[None]:
    """So many processes at work for as long as this lasts, as compilers are."""
    others = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
    try:
        yield
    finally:
        for other in others:
            other.kill()
            other.wait()


def _in_process(kind: str, spin: int, pictures: int, steps: int) -> tuple[float, float]:
    command = [sys.executable, "-m", "benchmarks.busy", "--measure", kind, "--pictures", str(pictures)]
    environment = {**os.environ, "GOMP_SPINCOUNT": str(spin)}
    done = subprocess.run(
        [*command, "--steps", str(steps)], env=environment, stdout=subprocess.PIPE, text=True, check=True
    )
    figures = json.loads(done.stdout)
    return figures["seconds"], figures["cpu"]


def _predict(pictures: int) -> float:
    """Seconds for so many small pictures, as `tood predict` goes through them."""
    import numpy as np
    import torch

    from tood.inference import Detector
    from tood.models import build_model
    from tood.weights import save_weights
    from tood.zoo import named_model

    config = named_model("tood_tiny").config()
    torch.manual_seed(0)
    names = tuple(str(i) for i in range(config.classes))
    with tempfile.TemporaryDirectory() as folder:
        save_weights(Path(folder) / "tiny.safetensors", build_model(config), names)
        detector = Detector(Path(folder) / "tiny.safetensors", "cpu", precision="fp32")
    shown = np.random.default_rng(0).integers(0, 256, (PICTURE_SIDE, PICTURE_SIDE, 3), np.uint8)
    detector(shown)
    started = time.perf_counter()
    for _ in detector.stream([shown] * pictures):
        pass
    return time.perf_counter() - started


def _train(steps: int) -> float:
    """Seconds for so many steps on 2 pictures of 256 x 256, without their loading."""
    import torch

    from tood.models import build_model
    from tood.ops.allocator import keep_freed_memory
    from tood.structures import Targets
    from tood.training import run_config
    from tood.training.optim import build_optimizer

    keep_freed_memory()
    torch.manual_seed(0)
    run = run_config("tood_tiny", PICTURE_SIDE)
    model = build_model(run.model).train().to(memory_format=torch.channels_last)
    criterion, optimizer = run.criterion.build(), build_optimizer(run.optimizer, model, 1e-5)
    images = torch.randn(2, 3, PICTURE_SIDE, PICTURE_SIDE)
    boxes = torch.tensor([[20.0, 20.0, 90.0, 120.0], [100.0, 60.0, 220.0, 200.0]])
    truth = [Targets(boxes, torch.zeros(2, dtype=torch.int64), torch.zeros(2, dtype=torch.bool))] * 2

    def step() -> None:
        losses = criterion(model(images), truth)
        optimizer.zero_grad()
        losses.total.backward()
        optimizer.step()

    step()
    started = time.perf_counter()
    for _ in range(steps):
        step()
    return time.perf_counter() - started


if __name__ == "__main__":
    main()
