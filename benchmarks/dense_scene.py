"""A training step on 5,000 boxes in each of eight images of 640 x 640: `python -m benchmarks.dense_scene`.

Prints the step's time and the assigner's extra memory, which must stay under 300 MB.
"""

from __future__ import annotations

import argparse
import time

import torch

from benchmarks.timing import peak_growth
from tood.alignment import TaskAlignedCriterion
from tood.models import build_model
from tood.structures import Targets
from tood.zoo import named_model

ALLOWED_MB = 300


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--boxes", type=int, default=5000)
    parser.add_argument("--images", type=int, default=8)
    parser.add_argument("--side", type=int, default=640)
    options = parser.parse_args()
    generator = torch.Generator().manual_seed(0)
    targets = []
    for _ in range(options.images):
        sides = torch.rand(options.boxes, 2, generator=generator) * 24 + 4
        corners = torch.rand(options.boxes, 2, generator=generator) * (options.side - sides)
        labels = torch.randint(80, (options.boxes,), generator=generator)
        crowd = torch.zeros(options.boxes, dtype=torch.bool)
        targets.append(Targets(torch.cat([corners, corners + sides], dim=1), labels, crowd))
    model = build_model(named_model("tood_tiny").config()).to(memory_format=torch.channels_last)
    criterion = TaskAlignedCriterion()
    images = torch.randn(options.images, 3, options.side, options.side, generator=generator)
    images = images.contiguous(memory_format=torch.channels_last)

    started = time.perf_counter()
    predictions = model(images)
    forward = time.perf_counter() - started
    detached = predictions.scores.detach(), predictions.boxes.detach()
    assigner = criterion.config.assigner
    growth = peak_growth(lambda: assigner(*detached, predictions.priors.centres, targets))
    started = time.perf_counter()
    losses = criterion(predictions, targets)
    assigned = time.perf_counter() - started
    started = time.perf_counter()
    losses.total.backward()
    backward = time.perf_counter() - started
    positives, loss = int(losses.assignment.positive.sum()), float(losses.total.detach())
    memory = growth * 1.048576  # MB, from MiB
    print(f"forward {forward:.2f} s, assignment and losses {assigned:.2f} s, backward {backward:.2f} s")
    print(f"{positives:,} positives, loss {loss:.3f}; the assigner's extra memory: {memory:.0f} MB")
    if memory > ALLOWED_MB:
        raise SystemExit(f"more than {ALLOWED_MB} MB")


if __name__ == "__main__":
    main()
