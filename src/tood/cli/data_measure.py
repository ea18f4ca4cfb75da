"""`tood data stats | split | bench`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tood.choices import ImageTransfer
from tood.cli.options import Data, Exif, Images, OnlySplits, Overwrite, optional
from tood.cli.report import write_json
from tood.counted import counted
from tood.progress_bar import progress_bar

if TYPE_CHECKING:
    from rich.console import Console

    from tood.data import DatasetStats, DetectionDataset

Model = Annotated[
    str | None,
    optional("Tell what a training of this model would leave out; left out, the one that `tood train` takes."),
]
Size = Annotated[
    int | None,
    optional("Short side of its input; left out, the model's."),
]

JsonFile = Annotated[Path | None, typer.Option("--json", help="Write the figures here.", metavar="FILE")]

_CLASSES_SHOWN = 20


def stats(
    data: Data,
    split: OnlySplits = None,
    exif: Exif = "auto",
    out: Annotated[
        Path | None,
        typer.Option(help="Folder for a picture of each split, stats_<split>.png; without it there is none."),
    ] = None,
    json_file: JsonFile = None,
    model: Model = None,
    size: Size = None,
) -> None:
    """Count what a dataset holds: sizes of pictures, classes, boxes an image, sizes and shapes of boxes.

    A box is small under 32x32 pixels of the stored picture and large from 96x96 on, as COCO has it. The input should
    leave the small ones some pixels (--size of `tood train`): boxes that a training would leave out as too small are
    counted, with the size that would keep them. A class of few boxes is learned badly. Crowds (VOC's
    difficult) are left out of all figures but their own. No picture is opened, so this is quick; `tood data check`
    decodes them all.
    """
    from rich.console import Console

    from tood.data import available_splits, dataset_stats, load_dataset
    from tood.training import chosen_run

    console, reports = Console(emoji=False), []
    chosen_run(model, size)  # what cannot be is told before anything is read
    splits = available_splits(data)
    for name in split or list(splits):
        dataset = load_dataset(data, name, images_required=False, exif=exif)
        found = dataset_stats(dataset)
        reports.append(found)
        _show_stats(found, console)
        if dataset.annotated:
            say_boxes(dataset, model, size, console)
        if out is not None:
            from tood.plots import dataset_picture

            picture = out / f"stats_{found.split}.png"
            dataset_picture(found, picture)
            console.print(f"picture: {picture}", highlight=False, markup=False, soft_wrap=True)
    if json_file is not None:
        write_json(json_file, [report.to_dict() for report in reports])
        console.print(f"figures: {json_file}", highlight=False, markup=False, soft_wrap=True)


def split(
    data: Data,
    out: Annotated[Path, typer.Option(help="Folder to write; appears whole or not at all.")],
    val: Annotated[float, typer.Option(help="Share of the images to validate on.")] = 0.2,
    test: Annotated[float, typer.Option(help="Share of the images to test on.")] = 0.0,
    of: Annotated[str | None, optional("The split to divide, where there are several.", None, "--split")] = None,
    exif: Exif = "auto",
    seed: Annotated[int, typer.Option(min=0, help="Another seed, another division; the same one, the same.")] = 0,
    images: Images = ImageTransfer.HARDLINK,
    overwrite: Overwrite = False,
) -> None:
    """Divide a dataset that has one split into train, val and, with --test, test.

    Images are drawn so that every class is shared out as the images are, and one of few images is in each part as long
    as it has as many; what cannot be so is told. The new folder is of the dataset's own format and what `tood train
    --data` takes. Pictures of one scene (frames of a film) may come to lie in different parts: divide those by hand.
    """
    from rich.console import Console

    from tood.data import split_dataset

    with progress_bar("dividing") as advance:
        report = split_dataset(
            data,
            out,
            val=val,
            test=test,
            split=of,
            exif=exif,
            seed=seed,
            transfer=images,
            overwrite=overwrite,
            progress=advance,
        )
    console = Console(emoji=False)
    total = sum(report.images.values())
    for name, count in report.images.items():
        boxes = counted(report.boxes[name], "box", "boxes")
        told = f"{name}: {counted(count, 'image')} ({100 * count / total:.0f} %), {boxes}"
        console.print(told, highlight=False, markup=False)
    for sentence in report.notes:
        console.print(f"note: {sentence}", highlight=False, markup=False)
    console.print(f"written: {report.out} ({report.format})", highlight=False, markup=False, soft_wrap=True)


def bench(
    data: Data,
    split: Annotated[str | None, optional("Split to load; left out, the one to train on.")] = None,
    model: Annotated[
        str | None,
        optional("Load as `tood train --model` of this name does; left out, the one that `tood train` takes."),
    ] = None,
    recipe: Annotated[str | None, optional("A recipe's name; left out, the model's own.")] = None,
    size: Annotated[int | None, optional("Short side of the input; left out, the model's.")] = None,
    batch_size: Annotated[int | None, optional("Images in a batch; left out, the recipe's.", least=1)] = None,
    workers: Annotated[
        int | None,
        optional("Loading processes; left out, as many as training takes.", least=0),
    ] = None,
    images: Annotated[int, typer.Option(min=1, help="Measure on so many, spread evenly over the split.")] = 200,
    json_file: JsonFile = None,
) -> None:
    """Measure how fast training images load, and say which stage limits and what to do about it.

    Each stage (read the file, decode it, resize and augment, collate into a batch) is timed alone in one process, then
    the whole loader with one worker and with as many as training takes. Nothing is cached, but files read lately come
    from the system's memory. A training that shows fewer images a second than the last line here waits for the network,
    not for the data.
    """
    from dataclasses import replace

    from rich.console import Console
    from rich.table import Table

    from tood.data import bench_loading, load_dataset
    from tood.training import chosen_run

    chosen_run(model, size, recipe)  # what cannot be is told before anything is read
    dataset = load_dataset(data, split)
    run = chosen_run(model, size, recipe, dataset.object_count)
    report = bench_loading(
        dataset,
        replace(run.data, workers=workers),
        run.augment,
        run.model.input,
        batch_size or run.batches()[0],
        images=images,
    )
    table = Table(title=f"{dataset.root}: {dataset.split}, {counted(report.images, 'image')}")
    for column in ("", "images/s", "share of a worker's time"):
        table.add_column(column, justify="right" if column else "left")
    for stage in report.stages:
        table.add_row(stage.name, f"{stage.images_per_second:,.0f}", f"{100 * stage.share:.0f} %")
    for loader in report.loaders:
        many = "in the trainer" if loader.workers == 0 else f"{loader.workers} worker{'s' * (loader.workers > 1)}"
        table.add_row(f"whole loader, {many}", f"{loader.images_per_second:,.0f}", "")
    console = Console(emoji=False)
    console.print(table)
    console.print(report.advice, highlight=False, markup=False, soft_wrap=True)
    if json_file is not None:
        write_json(json_file, report.to_dict())
        console.print(f"figures: {json_file}", highlight=False, markup=False, soft_wrap=True)


def say_boxes(dataset: DetectionDataset, model: str | None, size: int | None, console: Console) -> None:
    """How many of a split's boxes would reach a training on it, which are left out and why.

    Without a model that is one of the model that the training would take.
    """
    from tood.training import box_report, chosen_run

    run = chosen_run(model, size, objects=dataset.object_count)
    told = box_report(dataset, run).told or "all boxes are large enough"
    shown = run.model.input
    where = f"in a training of {run.name} ({run.recipe} recipe), input {shown.short} x {shown.long}"
    console.print(f"{where}: {told}", highlight=False, markup=False, soft_wrap=True)


def _show_stats(found: DatasetStats, console: Console) -> None:
    from rich.markup import escape
    from rich.table import Table

    table = Table(title=escape(f"{found.root}: {found.split} ({found.format})"))
    for column in ("", "smallest", "5 % below", "median", "5 % above", "largest"):
        table.add_column(column, justify="right" if column else "left")
    for name, spread in found.spreads().items():
        table.add_row(name, *(f"{value:.4g}" for value in vars(spread).values()))
    console.print(table)
    empty = int((found.boxes_an_image == 0).sum())
    boxes = counted(found.boxes, "box", "boxes")
    told = f"{counted(found.images, 'image')}, {empty:,} of them without an object; {boxes}"
    if found.boxes:
        told += ": " + ", ".join(
            f"{count:,} {size} ({100 * count / found.boxes:.0f} %)" for size, count in found.by_size.items()
        )
    if found.crowds:
        told += f"; {found.crowds:,} {'difficult' if found.format == 'voc' else 'crowds'} besides"
    console.print(told, highlight=False, markup=False, soft_wrap=True)
    classes = Table(show_header=True)
    for column in ("class", "boxes", "images"):
        classes.add_column(column, justify="left" if column == "class" else "right")
    ranked = sorted((one for one in found.classes if one.boxes), key=lambda one: -one.boxes)
    # The ends of a long list say most: what there is plenty of, and what is too rare to be learned.
    half = _CLASSES_SHOWN // 2
    for number, one in enumerate(ranked):
        if len(ranked) > _CLASSES_SHOWN and half <= number < len(ranked) - half:
            if number == half:
                classes.add_row(f"... {len(ranked) - 2 * half} more", "", "")
            continue
        classes.add_row(escape(one.name), f"{one.boxes:,}", f"{one.images:,}")
    console.print(classes)
    unused = [one.name for one in found.classes if not one.boxes]
    if unused:
        told = f"{len(unused)} of {len(found.classes)} classes have no box: {', '.join(unused)}"
        console.print(told, highlight=False, markup=False)
