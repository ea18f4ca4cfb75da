"""The runs: each variant on each dataset with each seed, a file of results for every one that has ended."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal, TypeAlias

from rich.console import Console

from benchmarks.comparison.variants import Variant
from tood.configuration import to_dict
from tood.data import AugmentConfig, CanvasStep, DataConfig, DigitsConfig, FlipStep, write_digits
from tood.models.measure import measure
from tood.training import RunConfig, train
from tood.whole_file import whole_file

DatasetName: TypeAlias = Literal["digits", "cells"]
DATASETS: tuple[DatasetName, ...] = ("digits", "cells")
# Of the cells' training images; as many digits are drawn.
_IMAGES = 292


@dataclass(frozen=True)
class Budget:
    """What every run may spend: the same for all, whatever a machine does meanwhile.

    Attributes:
        side: of the input in pixels; training sees canvases of `canvas`.
        images, epochs: training images, and passes over them: their product is the images seen.
        batch: images a step.
        tested: test pictures of the digits; of the cells all are taken.
        seeds: of the weights and of the images' order and changes.
    """

    side: int = 256
    canvas: int = 224
    images: int = _IMAGES
    epochs: int = 8
    batch: int = 4
    tested: int = 100
    seeds: tuple[int, ...] = (0, 1, 2)


FULL = Budget()
# All of it works, and nothing more: what CI has time for.
QUICK = Budget(side=128, canvas=96, images=8, epochs=1, tested=4, seeds=(0,))


@dataclass(frozen=True)
class Outcome:
    """A run that has ended.

    Attributes:
        variant, dataset, seed: which one.
        ap, ap50, ap75: on the test images, 0 to 1, of the averaged weights at the end.
        images: seen.
        parameters, multiply_adds: of the network, for one image of the input's size.
        spent: the budget's settings, by which a result of another one is known.
        run: all of the run's configuration.
    """

    variant: str
    dataset: str
    seed: int
    ap: float
    ap50: float
    ap75: float
    images: int
    parameters: int
    multiply_adds: int
    spent: dict[str, Any]
    run: dict[str, Any]


def settings_of(budget: Budget) -> dict[str, Any]:
    """What decides a single run's figures, as JSON has it."""
    return {name: value for name, value in asdict(budget).items() if name != "seeds"}


def results_file(out: Path, dataset: str, variant: str, seed: int) -> Path:
    """Where a run's result is."""
    return out / "runs" / f"{dataset}-{variant}-{seed}.json"


def read_outcomes(out: Path, budget: Budget) -> list[Outcome]:
    """The results that are there, of this budget."""
    found = [Outcome(**json.loads(path.read_text("utf-8"))) for path in sorted((out / "runs").glob("*.json"))]
    return [outcome for outcome in found if outcome.spent == settings_of(budget)]


def planned(
    variants: Sequence[Variant], datasets: Sequence[DatasetName], budget: Budget
) -> Iterator[tuple[int, DatasetName, Variant]]:
    """All runs: every variant with the first seed before any with the second, so that a part of it already compares."""
    for seed in budget.seeds:
        for dataset in datasets:
            for variant in variants:
                yield seed, dataset, variant


def run_missing(
    out: Path,
    variants: Sequence[Variant],
    datasets: Sequence[DatasetName],
    cells: Path,
    budget: Budget,
    console: Console,
) -> int:
    """Makes the results that are missing, one after the other.

    Returns:
        The number of the signal that stopped it, 0 for none: the same call then goes on.
    """
    done = {(outcome.seed, outcome.dataset, outcome.variant) for outcome in read_outcomes(out, budget)}
    plan = list(planned(variants, datasets, budget))
    for number, (seed, dataset, variant) in enumerate(plan, start=1):
        if (seed, dataset, variant.key) in done:
            continue
        console.print(f"{number} of {len(plan)}: {dataset}, {variant.title}, seed {seed}", highlight=False)
        folder = out / "work" / f"{dataset}-{variant.key}-{seed}"
        config = run_of(variant, dataset, seed, folder, _data(out, dataset, cells, budget), budget)
        result = train(config, resume="auto", console=None)
        if result.interrupted_by is not None:
            return result.interrupted_by
        assert result.ap is not None
        assert result.ap50 is not None
        assert result.ap75 is not None
        cost = measure(replace(config.model, classes={"digits": 10, "cells": 3}[dataset]))
        outcome = Outcome(
            variant=variant.key,
            dataset=dataset,
            seed=seed,
            ap=result.ap,
            ap50=result.ap50,
            ap75=result.ap75,
            images=round(result.epochs * budget.images),
            parameters=cost.parameters,
            multiply_adds=cost.multiply_adds,
            spent=settings_of(budget),
            run=to_dict(config),
        )
        with whole_file(results_file(out, dataset, variant.key, seed)) as path:
            path.write_text(json.dumps(asdict(outcome), indent=1) + "\n", encoding="utf-8")
        shutil.rmtree(folder, ignore_errors=True)
        console.print(f"    AP {result.ap:.3f}, {result.seconds:.0f} s", highlight=False)
    return 0


def run_of(variant: Variant, dataset: DatasetName, seed: int, folder: Path, data: Path, budget: Budget) -> RunConfig:
    """A run: the small recipe, whose rate and averaging are the same for all, on canvases of little variety.

    A digit in a mirror is another thing: it is not flipped.
    """
    run = variant.run(budget.side)
    if dataset == "digits":
        augment = AugmentConfig((CanvasStep(budget.canvas, scale=(1.0, 1.25)),))
    else:
        augment = AugmentConfig((CanvasStep(budget.canvas, scale=(0.8, 1.25)), FlipStep(0.5, vertical=0.5)))
    return replace(
        run,
        augment=augment,
        data=DataConfig(path=str(data), train="trainval" if dataset == "cells" else "train", val="test", workers=0),
        epochs=budget.epochs,
        batch_size=budget.batch,
        evaluate_every=budget.epochs,
        device="cpu",
        precision="fp32",
        seed=seed,
        trackers=(),
        out=folder,
    )


def _data(out: Path, dataset: DatasetName, cells: Path, budget: Budget) -> Path:
    """The dataset's folder; digits are drawn the first time."""
    if dataset == "cells":
        return _some_cells(out, cells, budget) if budget.images < _IMAGES else cells
    folder = out / "data" / f"digits-{budget.images}"
    write_digits(folder, DigitsConfig(budget.images, 0, budget.tested), processes=os.cpu_count() or 1)
    return folder


def _some_cells(out: Path, cells: Path, budget: Budget) -> Path:
    """The first of the cells alone, as links to the files."""
    folder = out / "data" / f"cells-{budget.images}"
    lists = folder / "ImageSets" / "Main"
    if not lists.is_dir():
        lists.mkdir(parents=True)
        for name in ("Annotations", "JPEGImages"):
            (folder / name).symlink_to((cells / name).absolute())
        for name, count in (("trainval", budget.images), ("test", budget.tested)):
            ids = (cells / "ImageSets" / "Main" / f"{name}.txt").read_text("utf-8").split()
            (lists / f"{name}.txt").write_text("\n".join(ids[:count]) + "\n", encoding="utf-8")
    return folder
