"""`tood eval`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tood import choices
from tood.cli.options import FILES, HOW, MODEL_HELP, BatchSize, Device, Exif, Precision, Threads, optional
from tood.counted import counted
from tood.progress_bar import progress_bar

if TYPE_CHECKING:
    import torch
    from rich.console import Console

    from tood.data import DetectionDataset
    from tood.engines import Engine
    from tood.evaluation import DetectionTable
    from tood.models import AnyDetector
    from tood.processes import Processes

WHAT = "What to evaluate on what"


def evaluate(
    model: Annotated[
        str | None,
        optional(MODEL_HELP, WHAT),
    ] = None,
    data: Annotated[
        str,
        typer.Option(
            help="Dataset: a COCO, YOLO or Pascal VOC folder, or a COCO annotations json.",
            rich_help_panel=WHAT,
        ),
    ] = "data/coco",
    split: Annotated[
        str | None,
        optional("Split to evaluate on. Left out: the annotated test split, else the one for validation.", WHAT),
    ] = None,
    exif: Exif = "auto",
    detections: Annotated[
        Path | None,
        optional("Evaluate this COCO results json instead of a model.", WHAT),
    ] = None,
    batch_size: BatchSize = 8,
    workers: Annotated[
        int | None,
        optional("Processes that load images. Left out: as suits the machine.", HOW, least=0),
    ] = None,
    device: Device = None,
    precision: Precision = "fp32",
    threads: Threads = None,
    out: Annotated[
        Path | None,
        optional("Folder for detections.json (as the COCO servers take it) and metrics.json.", FILES),
    ] = None,
    json: Annotated[
        Path | None,
        optional("File for the figures alone.", FILES),
    ] = None,
) -> None:
    """Measure a model, or detections, on a dataset: the 12 COCO figures, and AP of each class.

    Examples:

    tood eval --model tood_r50_fpn_1x --data data/coco

    tood eval --model runs/x/best.safetensors --data my_pictures --split test

    tood eval --model tood_r50_fpn_1x --precision auto   (faster where the CPU has bf16, for a first look)

    tood eval --detections detections.json --data data/coco --split val2017

    torchrun --nproc-per-node 4 -m tood eval --model x.safetensors --split test-dev2017 --out results
    """
    from rich.console import Console

    from tood.errors import ToodError
    from tood.inference import check_device, parse_device
    from tood.processes import join_processes, leave_processes

    if (model is None) == (detections is None):
        raise ToodError("give either --model, the weights to evaluate, or --detections, a COCO results json")
    # Joined first: a process that tries out a device before it has its own takes memory of the first GPU.
    asked = parse_device(device)
    processes, place = join_processes(asked)
    with processes.agreed():
        check_device(place if place.type == asked.type else asked)
    console = Console(quiet=not processes.main, emoji=False)
    with processes.agreed():
        dataset = _open(data, split, exif, images_required=detections is None)
    if not dataset.annotated and (out is None or detections is not None):
        raise ToodError(
            f"split '{dataset.split}' of {dataset.root} has no annotations to compare with: "
            "with --model and --out its detections are written for a server to judge"
        )
    found: DetectionTable | Path
    if detections is not None:
        found = detections
        console.print(f"{detections} on {_name(dataset)}", markup=False, highlight=False)
    else:
        found = _detect(str(model), dataset, batch_size, workers, place, precision, console, processes)
    # The one process that writes and speaks; its errors are everyone's.
    processes.from_main(lambda: _report(found, dataset, out, json, console))
    leave_processes()


def _report(
    found: DetectionTable | Path, dataset: DetectionDataset, out: Path | None, json: Path | None, console: Console
) -> None:
    from tood.evaluation import DetectionTable, evaluate_detections, result_table, save_result
    from tood.whole_file import remove_unfinished

    for folder in (out, json and json.parent):
        if folder is not None:
            remove_unfinished(folder)
    if isinstance(found, DetectionTable) and out is not None:
        found.save(out / "detections.json")
        typer.echo(f"Detections: {out / 'detections.json'}")
    if not dataset.annotated:
        return
    result = evaluate_detections(found, dataset)
    console.print(result_table(result))
    objects, detections = counted(result.objects, "object"), counted(result.detections, "detection")
    console.print(f"{counted(result.images, 'image')}, {objects}, {detections}")
    if result.ap < 0:
        why = "there is no object" if dataset.box_count == 0 else "no box but crowds (in VOC: difficult ones)"
        console.print(f"nothing can be measured: {why} in split '{dataset.split}'", markup=False, highlight=False)
    for path in (out / "metrics.json" if out is not None else None, json):
        if path is not None:
            save_result(result, path)
            typer.echo(f"Figures: {path}")


def _open(data: str, split: str | None, exif: choices.Exif, *, images_required: bool) -> DetectionDataset:
    from tood.data import load_dataset, pick_splits

    return load_dataset(data, split or pick_splits(data).evaluation, images_required=images_required, exif=exif)


def _name(dataset: DetectionDataset) -> str:
    return f"{dataset.root}, split {dataset.split} ({dataset.format}, {counted(len(dataset.images), 'image')})"


def _detect(
    model: str,
    dataset: DetectionDataset,
    batch_size: int,
    workers: int | None,
    device: torch.device,
    precision: Precision,
    console: Console,
    processes: Processes,
) -> DetectionTable:
    import time

    from tood.engines import is_exported
    from tood.evaluation import detect
    from tood.inference import engine_precision, load_engine, load_model
    from tood.machine import busy_advice
    from tood.precision import choose_precision

    network: AnyDetector | Engine
    with processes.agreed():
        if is_exported(model):
            network = load_engine(model, device)
            class_names, chosen = network.description.class_names, engine_precision(network, precision)
        else:
            network, class_names = load_model(model)
            chosen = str(choose_precision(precision, device))
    shared = "" if processes.alone else f", {processes.count} processes"
    console.print(f"{model} on {_name(dataset)}, {device}, {chosen}{shared}", markup=False, highlight=False)
    if advice := busy_advice():
        console.print(advice, markup=False, highlight=False, soft_wrap=True)
    begin = time.perf_counter()
    with progress_bar("images", shown=processes.main) as move:
        table = detect(
            network,
            dataset,
            class_names,
            batch_size=batch_size,
            workers=workers,
            device=device,
            progress=move,
            processes=processes,
            precision=precision,
        )
    seconds = time.perf_counter() - begin
    console.print(f"{len(dataset.images) / seconds:.1f} images/s, loading included", highlight=False)
    return table
