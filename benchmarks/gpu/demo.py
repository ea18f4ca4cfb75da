"""`tood demo` on the device: how good a model gets in less than a minute, and how fast it sees its pictures."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path

from rich.console import Console

from benchmarks.gpu.bench import Bench
from tood.cli.demo import demo_run
from tood.data import load_dataset
from tood.data.digits import DigitsConfig, write_digits
from tood.evaluation import evaluate
from tood.machine import usable_cores
from tood.training import train
from tood.weights import load_model


def run(bench: Bench) -> None:
    """A quarter of the time that `make demo` takes."""
    minutes, digits = bench.pick((0.75, DigitsConfig()), (0.01, DigitsConfig(train=4, val=1, test=1)))
    config = replace(demo_run(bench.folder / "run", minutes, 0), device=bench.device.type)
    write_digits(config.data.path, digits, processes=min(usable_cores(), bench.pick(8, 1)))
    if bench.dry:
        config = replace(config, data=replace(config.data, workers=0))
    result = train(config, console=Console(width=160))
    model, names = load_model(result.best or result.last)
    found = evaluate(model.to(bench.device), load_dataset(config.data.path, "test"), names)
    row, table = f"{minutes:g} minutes", "digits, test split"
    for name, figure in (("AP", found.ap), ("AP50", found.ap50)):
        bench.cell(table, row, name, figure, "")
    bench.cell(table, row, "steps", result.steps, "")
    bench.cell(table, row, "images a second, the fastest stretch", _fastest(result.out / "metrics.csv"), "")
    if not bench.dry:
        bench.check("the digits are learnt", found.ap >= 0.6, f"AP {found.ap:.3f}")


def _fastest(metrics: Path) -> float:
    with metrics.open(newline="", encoding="utf-8") as file:
        return max(float(row["images_per_second"] or 0) for row in csv.DictReader(file))
