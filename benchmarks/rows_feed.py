"""Whether one loading process keeps a bf16 step of R50 at 800x1333 fed, on the same cores."""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch

from benchmarks.rows_data import HEIGHT, WIDTH, write_pictures
from benchmarks.rows_network import TrainingStep
from benchmarks.timing import QUICK, THREADS, emit
from tood.data import AugmentConfig, Batch, BatchPlan, Category, DataConfig, DetectionDataset, ImageRecord, train_loader
from tood.input import InputConfig, normalise

STEPS = 3 if QUICK else 8


def photographs(folder: Path) -> DetectionDataset:
    """JPEGs with ten objects each."""
    rng, records = np.random.default_rng(0), []
    for number, path in enumerate(write_pictures(folder)):
        corner = rng.uniform(0, (WIDTH - 200, HEIGHT - 200), (10, 2))
        boxes = np.concatenate([corner, corner + rng.uniform(20, 200, (10, 2))], 1).astype(np.float32)
        none, labels = np.zeros(10, np.bool_), rng.integers(0, 80, 10)
        records.append(
            ImageRecord(
                number, path, WIDTH, HEIGHT, boxes, labels, none, np.prod(boxes[:, 2:] - boxes[:, :2], 1), labels
            )
        )
    categories = tuple(Category(label, str(label)) for label in range(80))
    return DetectionDataset(folder, "train", "coco", categories, tuple(records))


def median_step(step: TrainingStep, batches: Iterable[Batch]) -> float:
    """Seconds from one step's end to the next one's, waiting for the batch included."""
    ends = []
    for batch in batches:
        step(normalise(batch.images, batch.sizes, InputConfig(800, 1333)), batch.targets, True)
        ends.append(time.perf_counter())
        if len(ends) == STEPS + 2:
            break
    return statistics.median(np.diff(ends[1:]))  # the first steps set up


def main() -> None:
    """Prints a step with a batch that is there, and one with the loader's."""
    torch.set_num_threads(THREADS)
    step = TrainingStep()
    with tempfile.TemporaryDirectory() as folder:
        data = DataConfig(workers=1, cache=False)
        loader = train_loader(photographs(Path(folder)), data, AugmentConfig(), InputConfig(800, 1333), BatchPlan(1))
        batch = next(iter(loader))
        for _ in range(2):
            emit("step of one batch", median_step(step, [batch] * (STEPS + 2)) * 1e3, "ms")
            emit("step fed by the loader", median_step(step, loader) * 1e3, "ms")


if __name__ == "__main__":
    main()
