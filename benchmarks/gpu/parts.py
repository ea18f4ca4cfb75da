"""The parts, those worth most first: the time may be over before the last."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby


@dataclass(frozen=True)
class Part:
    """Something to find out, in a process of its own.

    Attributes:
        name: what it and its file are called.
        does: module and function, which is given a `Bench`.
        seconds: after which it is ended.
        title: of its section.
        timed: whether it measures time, so that nothing may run beside it.
    """

    name: str
    does: str
    seconds: float
    title: str
    timed: bool = True


PARTS = (
    Part("machine", "benchmarks.gpu.machine:run", 60, "The machine"),
    Part("golden", "benchmarks.gpu.golden:run", 60, "Golden values on the device", timed=False),
    Part("waiting", "benchmarks.gpu.waiting:run", 110, "No wait of the host in a step", timed=False),
    Part("families", "benchmarks.gpu.families:run", 110, "Every family's step", timed=False),
    Part("assignments", "benchmarks.gpu.assignments:run", 110, "Equal assignments on CPU and GPU", timed=False),
    Part("precision", "benchmarks.gpu.precision:run", 110, "Deterministic mode and mixed precision", timed=False),
    Part("training-r50", "benchmarks.gpu.throughput:main_model", 90, "Training TOOD R50 at 800x1333"),
    Part("training-small", "benchmarks.gpu.throughput:small", 90, "Training small models"),
    Part("inference", "benchmarks.gpu.inference:run", 60, "Inference"),
    Part("assigner", "benchmarks.gpu.assigner:run", 40, "Assigning 5,000 objects in each of 32 images"),
    Part("loading", "benchmarks.gpu.loading:run", 60, "Whether loading keeps up"),
    Part("demo", "benchmarks.gpu.demo:run", 90, "The demo"),
    Part("compiled", "benchmarks.gpu.throughput:compiled", 150, "Compiled"),
    Part("mmdetection", "benchmarks.gpu.mmdetection:run", 60, "MMDetection's step"),
)


def rounds(parts: Sequence[Part]) -> list[list[Part]]:
    """What runs one after the other: a part that measures time, or several that do not."""
    grouped = [(timed, list(group)) for timed, group in groupby(parts, key=lambda part: part.timed)]
    return [one for timed, group in grouped for one in ([[part] for part in group] if timed else [group])]
