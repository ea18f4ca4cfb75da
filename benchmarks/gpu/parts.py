"""The parts, those worth most first: the time may be over before the last."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Part:
    """Something to find out, in a process of its own.

    Attributes:
        name: what it and its file are called.
        does: module and function, which is given a `Bench`.
        seconds: after which it is ended.
        title: of its section.
    """

    name: str
    does: str
    seconds: float
    title: str


PARTS = (
    Part("machine", "benchmarks.gpu.machine:run", 60, "The machine"),
    Part("golden", "benchmarks.gpu.golden:run", 60, "Golden values on the device"),
    Part("waiting", "benchmarks.gpu.waiting:run", 75, "No wait of the host in a step"),
    Part("families", "benchmarks.gpu.families:run", 75, "Every family's step"),
    Part("training-r50", "benchmarks.gpu.throughput:main_model", 90, "Training TOOD R50 at 800x1333"),
    Part("assignments", "benchmarks.gpu.assignments:run", 60, "Equal assignments on CPU and GPU"),
    Part("precision", "benchmarks.gpu.precision:run", 75, "Deterministic mode and mixed precision"),
    Part("training-small", "benchmarks.gpu.throughput:small", 90, "Training small models"),
    Part("inference", "benchmarks.gpu.inference:run", 60, "Inference"),
    Part("assigner", "benchmarks.gpu.assigner:run", 40, "Assigning 5,000 objects in each of 32 images"),
    Part("loading", "benchmarks.gpu.loading:run", 60, "Whether loading keeps up"),
    Part("demo", "benchmarks.gpu.demo:run", 90, "The demo"),
    Part("compiled", "benchmarks.gpu.throughput:compiled", 150, "Compiled"),
    Part("mmdetection", "benchmarks.gpu.mmdetection:run", 60, "MMDetection's step"),
)
