"""The table: every row, what is compared with whom, and the ratio to reach.

The one place to extend: a row names lines that a subject's modules print as json (`benchmarks.timing.emit`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

OURS, LIMIT, USUAL = "ours", "limit", "Pillow + numpy"
MMDETECTION, ULTRALYTICS, PYCOCOTOOLS = "MMDetection 3.3", "Ultralytics 8.4", "pycocotools"


@dataclass(frozen=True)
class Subject:
    """What is measured in one process each.

    Attributes:
        ours: module and arguments, run in our environment.
        beside: the same by name, run there too: the machine's limit, the usual way of doing it.
        peers: the same by name, run in the peers' environment.
    """

    ours: tuple[str, ...]
    beside: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    peers: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


@dataclass(frozen=True)
class Row:
    """One comparison.

    Attributes:
        name: what `--rows` selects by, whole or from the front.
        subject: whose processes print the lines.
        line: our line.
        against: whose figure ours is divided by; None for a target that is a figure.
        their_line: theirs, where it is called otherwise.
        target: largest ratio, or largest figure without `against`; smallest, where more is better. None: no target.
        more_is_better: for rates.
    """

    name: str
    subject: str
    line: str
    against: str | None = None
    target: float | None = None
    their_line: str | None = None
    more_is_better: bool = False


SUBJECTS: Mapping[str, Subject] = MappingProxyType(
    {
        "network": Subject(
            ours=("benchmarks.rows_network",),
            beside={LIMIT: ("benchmarks.probe",)},
            peers={MMDETECTION: ("benchmarks.peers.mmdetection_network",)},
        ),
        "step": Subject(
            ours=("benchmarks.rows_network", "step"),
            peers={MMDETECTION: ("benchmarks.peers.mmdetection_network", "step")},
        ),
        "assign": Subject(
            ours=("benchmarks.rows_assign",),
            peers={
                MMDETECTION: ("benchmarks.peers.mmdetection_assign",),
                ULTRALYTICS: ("benchmarks.peers.ultralytics_assign",),
            },
        ),
        "evaluation": Subject(
            ours=("benchmarks.rows_evaluation",),
            peers={PYCOCOTOOLS: ("benchmarks.peers.pycocotools_evaluation",)},
        ),
        "data": Subject(ours=("benchmarks.rows_data",), beside={USUAL: ("benchmarks.rows_data", "--usual")}),
        "feed": Subject(ours=("benchmarks.rows_feed",)),
        "stream": Subject(ours=("benchmarks.rows_stream",)),
        "small": Subject(ours=("benchmarks.rows_small",)),
        "start": Subject(ours=("benchmarks.rows_start",), peers={ULTRALYTICS: ("benchmarks.peers.ultralytics_start",)}),
    }
)


def rows() -> tuple[Row, ...]:
    """All rows, by the issue's numbers; bf16's targets depend on what the CPU has."""
    amx, avx = _cpu_has("amx_bf16"), _cpu_has("avx512_bf16")
    return (
        Row("network-fp32", "network", "network fp32", MMDETECTION, 0.70),
        Row("network-bf16", "network", "network bf16", MMDETECTION, _bf16(0.22, 0.42, amx, avx), "network fp32"),
        Row("network-limit", "network", "network fp32 speed", LIMIT, 0.75, "convolution fp32", more_is_better=True),
        Row("network-memory", "network", "network memory", MMDETECTION, 0.80),
        Row("postprocess", "network", "post-processing", MMDETECTION, 1 / 9),
        Row("step-fp32", "step", "step fp32", MMDETECTION, 0.75),
        Row("step-bf16", "step", "step bf16", MMDETECTION, _bf16(0.40, 0.60, amx, avx), "step fp32"),
        Row("step-losses", "step", "step losses share", None, 5.0),
        Row("assign-22400x500", "assign", "tal 22400x500", MMDETECTION, 1 / 25),
        Row("assign-22400x500", "assign", "tal 22400x500", ULTRALYTICS, 1 / 12),
        Row("assign-8400x5000", "assign", "tal 8400x5000", MMDETECTION, 1 / 25),
        Row("assign-8400x5000", "assign", "tal 8400x5000", ULTRALYTICS, 1 / 15),
        Row("assign-8400x10", "assign", "tal 8400x10", MMDETECTION, 1 / 3),
        Row("assign-8400x10", "assign", "tal 8400x10", ULTRALYTICS),
        Row("assign-memory", "assign", "tal memory 8400x5000", None, 50.0),
        Row("assign-memory", "assign", "tal memory 8400x5000", MMDETECTION),
        Row("assign-memory", "assign", "tal memory 8400x5000", ULTRALYTICS),
        Row("assign-atss", "assign", "atss 22400x500", MMDETECTION, 1 / 20),
        Row("evaluation", "evaluation", "evaluation", None, 1.0),
        Row("evaluation", "evaluation", "evaluation", PYCOCOTOOLS, 1 / 41),
        Row("evaluation-command", "evaluation", "evaluation, tood eval"),
        Row("data", "data", "images", USUAL, 1.5, more_is_better=True),
        Row("data-fed", "feed", "step fed by the loader", OURS, 1.05, "step of one batch"),
        Row("stream-memory", "stream", "memory grown over a stream", None, 20.0),
        Row("small-bf16", "small", "small detector bf16", None, 25.0, more_is_better=True),
        Row("small-fp32", "small", "small detector fp32", None, 15.0, more_is_better=True),
        Row("start-import", "start", "import tood", None, 0.15),
        Row("start-help", "start", "tood --help", None, 0.4),
        Row("start-help", "start", "tood train --help", None, 0.4),
        Row("start-detection", "start", "first detection", None, 4.0),
        Row("start-detection", "start", "first detection", ULTRALYTICS),
        Row("start-small", "start", "first detection, tood_lite0", None, 2.0),
        Row("start-models", "start", "tood models"),
    )


def _bf16(with_amx: float, with_avx: float, amx: bool, avx: bool) -> float | None:
    return with_amx if amx else with_avx if avx else None


def _cpu_has(flag: str) -> bool:
    facts = Path("/proc/cpuinfo")
    return facts.exists() and f" {flag} " in facts.read_text().replace("\n", " \n")
