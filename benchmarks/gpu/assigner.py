"""TAL at 8,400 priors and 5,000 objects in each of 32 images: its time and memory by the size of its blocks."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from unittest.mock import patch

import torch

from benchmarks.gpu.bench import Bench
from benchmarks.gpu.clock import peak_mib, seconds_a_call
from benchmarks.gpu.work import named_run
from benchmarks.rows_network import TrainingStep
from benchmarks.scenes import SQUARE, scene
from tood.alignment import TaskAlignedAssigner
from tood.alignment.assigners import assignment
from tood.structures import Targets

# Without blocks each temporary of 32 images would take 5 GiB.
ALLOWED_MIB = 1024


def run(bench: Bench) -> None:
    """The assigner alone, then in a step of eight such images."""
    images, truths = bench.pick((32, 5000), (2, 40))
    scenes = [scene(*SQUARE, truths, seed=image) for image in range(images)]
    targets = [
        Targets(made.truth_boxes, made.truth_labels, torch.zeros(truths, dtype=torch.bool)).to(bench.device)
        for made in scenes
    ]
    scores, boxes = (torch.stack([getattr(made, what) for made in scenes]) for what in ("scores", "boxes"))
    there = scores.to(bench.device), boxes.to(bench.device), scenes[0].centres.to(bench.device)
    assign = partial(TaskAlignedAssigner(), *there, targets)
    table = f"{images} images of {len(scenes[0].centres):,} priors x {truths:,} objects"
    ours = assignment.GPU_BLOCK if bench.on_gpu else assignment.BLOCK
    for block in bench.pick((ours, ours // 8, ours * 8), (ours,)):
        row = f"blocks of {block * 4 / 2**20:.0f} MiB{' (ours)' if block == ours else ''}"
        with bench.trying(row), patch.multiple(assignment, BLOCK=block, GPU_BLOCK=block):
            _measured(bench, table, row, assign)
    with bench.trying("a step"):
        _step(bench, targets)


def _measured(bench: Bench, table: str, row: str, assign: Callable[[], object]) -> None:
    bench.cell(table, row, "time", seconds_a_call(assign, bench.device, *bench.pick((1.0, 1), (0.0, 0))) * 1e3, "ms")
    memory = peak_mib(assign, bench.device)
    bench.cell(table, row, "memory", memory, "MiB")
    if row.endswith("(ours)"):
        bench.check("its memory does not grow with objects x priors", memory <= ALLOWED_MIB, f"{memory:.0f} MiB")


def _step(bench: Bench, targets: list[Targets]) -> None:
    """`tood_tiny` on eight of them."""
    side, count = bench.pick((640, 8), (64, 1))
    step = TrainingStep(named_run("tood_tiny", bench.device, (side, side)), bench.device)
    images = torch.randn(count, 3, side, side, device=bench.device).contiguous(memory_format=torch.channels_last)

    def call() -> None:
        step(images, targets[:count], True)

    table = f"step of tood_tiny on {count} of them, bf16"
    seconds = seconds_a_call(call, bench.device, *bench.pick((1.0, 2), (0.0, 0)))
    bench.cell(table, f"{side} x {side}", "time", seconds * 1e3, "ms")
    bench.cell(table, f"{side} x {side}", "memory", peak_mib(call, bench.device), "MiB")
