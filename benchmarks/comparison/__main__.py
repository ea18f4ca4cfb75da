"""`make comparison`: makes what results are missing, then the page and its picture of all that are there.

A command that was stopped goes on where it was; `--page` makes the page alone.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

import torch
from rich.console import Console

from benchmarks.comparison.page import write_page
from benchmarks.comparison.runs import DATASETS, FULL, QUICK, DatasetName, read_outcomes, run_missing
from benchmarks.comparison.speed import measure_speed, read_speed
from benchmarks.comparison.variants import VARIANTS
from tood.errors import ToodError

ROOT = Path(__file__).parents[2]


def main() -> int:
    """Runs it; the exit code is 2 for an error that is the caller's, 128 + a signal's number if one stopped it."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.comparison", description=__doc__)
    parser.add_argument("--out", type=Path, help="folder of the results (benchmarks/results/comparison, -quick)")
    parser.add_argument("--docs", type=Path, help="folder of the page (docs; of a quick one that of the results)")
    parser.add_argument("--quick", action="store_true", help="a few images each: whether everything works")
    parser.add_argument("--cells", type=Path, default=Path(os.environ.get("TOOD_TEST_DATA", "data")) / "bccd")
    parser.add_argument("--only", default="", help="variants, separated by commas")
    parser.add_argument("--datasets", default="", help="digits, cells or both, separated by commas")
    parser.add_argument("--runs", action="store_true", help="only make the results, on a machine that others use too")
    parser.add_argument("--page", action="store_true", help="only the page, of the results that are there")
    parser.add_argument("--speed", action="store_true", help="only measure images a second, on a quiet machine")
    parser.add_argument("--threads", type=int, default=int(os.environ.get("OMP_NUM_THREADS", "2")))
    arguments = parser.parse_args()
    budget = QUICK if arguments.quick else FULL
    out = arguments.out or ROOT / "benchmarks" / "results" / ("comparison-quick" if arguments.quick else "comparison")
    docs = arguments.docs or (out if arguments.quick else ROOT / "docs")
    torch.set_num_threads(arguments.threads)
    console = Console(emoji=False)
    try:
        variants = [VARIANTS[key] for key in _chosen(arguments.only, tuple(VARIANTS))]
        datasets: list[DatasetName] = [name for name in DATASETS if name in _chosen(arguments.datasets, DATASETS)]
        makes = not arguments.page and not arguments.speed
        if makes and "cells" in datasets and not arguments.cells.is_dir():
            console.print(f"no blood cells in {arguments.cells}: digits alone (--cells names their folder)")
            datasets.remove("cells")
        if makes:
            stopped_by = run_missing(out, variants, datasets, arguments.cells, budget, console)
            if stopped_by:
                console.print("stopped: the same command goes on")
                return 128 + stopped_by
        if arguments.runs:
            return 0
        if arguments.speed or (not arguments.page and read_speed(out) is None):
            measure_speed(out, variants, budget)
        outcomes = read_outcomes(out, budget)
        if outcomes:
            console.print(f"page: {write_page(outcomes, read_speed(out), budget, docs)}")
    except ToodError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def _chosen(text: str, known: tuple[str, ...]) -> list[str]:
    names = [name.strip() for name in text.split(",") if name.strip()] or list(known)
    for name in names:
        if name not in known:
            raise ToodError(f"there is no '{name}': choose from {', '.join(known)}")
    return names


if __name__ == "__main__":
    sys.exit(main())
