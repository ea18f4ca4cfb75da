"""`tood demo`: the whole way from a dataset to pictures with boxes, in a few minutes on any machine."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tood.choices import PLAIN_MODEL
from tood.cli.options import optional

if TYPE_CHECKING:
    from rich.console import Console

    from tood.data import DetectionDataset
    from tood.data.digits import DigitsConfig
    from tood.training import RunConfig, RunFolder

# Pixels of the input. The pictures have 256 and are trained at that; enlarged, their smallest digits are found
# more precisely.
INPUT_SIDE, CANVAS = 352, 256
# So short a run gains more from steps than from images a step.
BATCH, RATE = 6, 3.5e-3
SHEET_IMAGES = 12
# What it writes besides the run.
_WRITTEN = _PICTURES, _SHEET, _CURVES = "digits", "detections.png", "curves.png"


def demo(
    out: Annotated[
        Path | None,
        optional("Folder to write to. Left out: runs/demo, or runs/demo-N if that is taken."),
    ] = None,
    minutes: Annotated[float, typer.Option(help="Minutes of training.")] = 3.0,
    seed: Annotated[int, typer.Option(min=0, help="Of the pictures and of training.")] = 0,
) -> None:
    """Train on pictures of handwritten digits for 3 minutes, evaluate, and show what is found.

    Writes the built-in dataset, trains a small model on it, and prints its AP on test pictures of other people's hand.

    Saves two pictures: the predictions beside the truth, and the training curves.

    Example: tood demo --minutes 1
    """
    from rich.console import Console

    from tood.data.digits import DigitsConfig

    run_demo(out, minutes, DigitsConfig(seed=seed), Console(emoji=False))


def run_demo(out: Path | None, minutes: float, digits: DigitsConfig, console: Console) -> None:
    """The demo, with any number of pictures.

    Args:
        out: folder to write to, None for `runs/demo` or the next number that is free.
        minutes: of training.
        digits: the pictures.
        console: where it is shown.

    Raises:
        ToodError: if `out` holds another run, or files that the demo would replace, or cannot be written.
    """
    from tood.training import claimed_folder, run_folders

    with claimed_folder(out, run_folders("demo", unnumbered=True), also=_WRITTEN) as folder:
        _run_demo(folder, minutes, digits, console)


def _run_demo(folder: RunFolder, minutes: float, digits: DigitsConfig, console: Console) -> None:
    from tood.data import load_dataset
    from tood.data.digits import write_digits
    from tood.errors import quoted
    from tood.evaluation import evaluate
    from tood.machine import usable_cores
    from tood.plots import training_curves
    from tood.training import train
    from tood.weights import load_model

    out = folder.path
    run = demo_run(out, minutes, digits.seed)
    console.print(f"Drawing pictures of handwritten digits into {run.data.path} ...", highlight=False)
    write_digits(run.data.path, digits, processes=min(usable_cores(), 8))
    result = train(run, console=console, folder=folder)
    if result.interrupted_by is not None:
        raise typer.Exit(128 + result.interrupted_by)

    weights = result.best or result.last
    model, names = load_model(weights)
    test = load_dataset(run.data.path, "test")
    console.print(f"Evaluating on {len(test.images)} test pictures, written by other people ...", highlight=False)
    scores = evaluate(model, test, names, batch_size=run.batches()[0])
    sheet, curves = (out / name for name in (_SHEET, _CURVES))
    save_sheet(weights, test, sheet)
    training_curves(out / "metrics.csv", curves)

    console.print(
        f"\nTest split: AP {scores.ap:.3f}  AP50 {scores.ap50:.3f}  AP75 {scores.ap75:.3f}   "
        f"({len(test.images)} pictures, {test.box_count} digits; AP is over IoU 0.50:0.95)\n\n"
        f"Predictions beside the truth: {sheet}\n"
        f"Training curves:              {curves}\n"
        f"Weights:                      {weights}\n"
        f"Try them: tood predict --model {quoted(weights)} {quoted(test.images[0].path)}",
        highlight=False,
        soft_wrap=True,
        markup=False,
    )


def demo_run(out: Path, minutes: float, seed: int) -> RunConfig:
    """How the demo trains: a short run on pictures that are varied already, so they are varied little more.

    A digit in a mirror is another thing: nothing is flipped.
    """
    from dataclasses import replace

    from tood.data import AugmentConfig, CanvasStep
    from tood.training import DataConfig, run_config

    run = run_config(PLAIN_MODEL, INPUT_SIDE)
    return replace(
        run,
        augment=AugmentConfig((CanvasStep(CANVAS, scale=(1.0, 1.25)),)),
        batch_size=BATCH,
        optimizer=replace(run.optimizer, lr=RATE),
        data=DataConfig(path=str(out / _PICTURES)),
        minutes=minutes,
        evaluation_share=0.0,
        seed=seed,
        out=out,
    )


def save_sheet(weights: Path, dataset: DetectionDataset, path: Path) -> None:
    """The first pictures of a dataset, truth beside predictions, as PNG."""
    import torch

    from tood.inference import Detector
    from tood.plots import SheetRow, contact_sheet
    from tood.structures import Detections

    detector = Detector(weights)
    rows = []
    for image in dataset.images[:SHEET_IMAGES]:
        found = detector(image.path)
        assert found.image is not None
        labels = torch.from_numpy(image.labels)
        truth = Detections(torch.from_numpy(image.boxes), torch.ones(len(labels)), labels, dataset.class_names)
        rows.append(SheetRow(found.image, truth, found, image.name))
    contact_sheet(rows, path)
