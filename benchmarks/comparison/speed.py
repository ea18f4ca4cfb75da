"""How many images a second each variant trains on and predicts from, measured apart from the runs."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.comparison.runs import Budget
from benchmarks.comparison.variants import Variant
from benchmarks.rows_network import TrainingStep
from tood.models import build_model, for_inference
from tood.structures import Targets
from tood.whole_file import whole_file

ROUNDS, OBJECTS, CLASSES = 3, 12, 10
# Batches of a step; single images are predicted from.
BATCH = 4
_FILE = "speed.json"


def measure_speed(out: Path, variants: Sequence[Variant], budget: Budget) -> None:
    """Writes the best of several rounds, in which the variants take turns: the machine's mood then strikes all."""
    work = {variant.key: _work(variant, budget) for variant in variants}
    best = {key: {"training": 0.0, "prediction": 0.0} for key in work}
    for _ in range(ROUNDS):
        for key, (step, predict) in work.items():
            best[key]["training"] = max(best[key]["training"], BATCH / _seconds(step, 3))
            best[key]["prediction"] = max(best[key]["prediction"], 1 / _seconds(predict, 10))
    content = {"threads": torch.get_num_threads(), "side": budget.side, "canvas": budget.canvas, "variants": best}
    with whole_file(out / _FILE) as path:
        path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def read_speed(out: Path) -> dict[str, Any] | None:
    """What was measured, None before it was."""
    path = out / _FILE
    return json.loads(path.read_text("utf-8")) if path.is_file() else None


def _work(variant: Variant, budget: Budget) -> tuple[Callable[[], object], Callable[[], object]]:
    """A training step, and the network on an image: what follows depends on what it has learned to find."""
    run = variant.run(budget.side)
    run = replace(run, model=replace(run.model, classes=CLASSES))
    torch.manual_seed(0)
    step, config = TrainingStep(run), run.model
    images = _images(BATCH, budget.canvas)
    corners = torch.rand(BATCH, OBJECTS, 2) * budget.canvas * 0.7
    boxes = torch.cat([corners, corners + 10 + torch.rand(BATCH, OBJECTS, 2) * 50], dim=2)
    crowd = torch.zeros(OBJECTS, dtype=torch.bool)
    targets = [Targets(of_image, torch.randint(0, CLASSES, (OBJECTS,)), crowd) for of_image in boxes]
    network, image = for_inference(build_model(config).eval()), _images(1, budget.side)

    def predict() -> object:
        with torch.inference_mode():
            return network(image)

    return lambda: step(images, targets, False), predict


def _images(count: int, side: int) -> Tensor:
    return torch.randn(count, 3, side, side).contiguous(memory_format=torch.channels_last)


def _seconds(function: Callable[[], object], times: int) -> float:
    """Of the fastest of several calls, after one that is not counted."""
    function()
    found = []
    for _ in range(times):
        started = time.perf_counter()
        function()
        found.append(time.perf_counter() - started)
    return min(found)
