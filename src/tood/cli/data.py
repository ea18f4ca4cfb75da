"""`tood data list | check | convert`; the others are in `data_measure`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tood.choices import DatasetFormat, ImageTransfer
from tood.cli.data_measure import Model, Size, bench, say_boxes, split, stats
from tood.cli.options import Data, Exif, Images, OnlySplits, Overwrite
from tood.cli.report import write_json
from tood.counted import counted
from tood.progress_bar import progress_bar

if TYPE_CHECKING:
    from rich.console import Console

    from tood.data import CheckReport, Problem
    from tood.data.dataset import Severity

app = typer.Typer(
    help="Look at, check, convert and divide datasets; measure their loading.",
    no_args_is_help=True,
    rich_markup_mode="rich",
)

ERRORS_FOUND = 1
_SHOWN = 20
SEVERITIES: tuple[Severity, ...] = ("error", "warning", "note")


@app.command(name="list")
def list_splits(data: Data) -> None:
    """Show the splits of a dataset: images, boxes, classes, and which are trained and evaluated on."""
    from rich.console import Console
    from rich.table import Table

    from tood.data import available_splits, load_dataset, pick_splits
    from tood.errors import ToodError

    splits = available_splits(data)
    loaded = {name: load_dataset(data, name, images_required=False) for name in splits}
    table = Table(title=f"{data} ({next(iter(loaded.values())).format})")
    for column in ("split", "images", "boxes", "classes", "from"):
        table.add_column(column, justify="right" if column in ("images", "boxes", "classes") else "left")
    for name, dataset in loaded.items():
        boxes = f"{dataset.box_count:,}" if dataset.annotated else "no annotations"
        table.add_row(name, f"{len(dataset):,}", boxes, str(len(dataset.categories)), str(splits[name].source))
    console = Console(emoji=False)
    console.print(table)
    for name, dataset in loaded.items():
        for note in dataset.notes:
            console.print(f"note: {name}: {note}", markup=False, highlight=False, soft_wrap=True)
    try:
        picked = pick_splits(data)
    except ToodError:
        return
    console.print(
        f"trained on: {picked.train}, validated on: {picked.val or 'nothing'}, evaluated on: {picked.evaluation}",
        markup=False,
    )
    if picked.note:
        console.print(picked.note, highlight=False, markup=False)


@app.command()
def check(
    data: Data,
    split: Annotated[str | None, typer.Option(help="Only this split; all of them if not named.")] = None,
    exif: Exif = "auto",
    json_file: Annotated[
        Path | None, typer.Option("--json", help="Write the whole report here.", metavar="FILE")
    ] = None,
    show_all: Annotated[
        bool, typer.Option("--all", help=f"List everything, not the first {_SHOWN} of each kind.")
    ] = False,
    model: Model = None,
    size: Size = None,
) -> None:
    """Read everything, decode every image, and tell every problem with its file and id.

    Boxes that a training would leave out as too small are counted, with the size of its input that would keep them.

    Exit code 0: no errors (warnings and notes are none); 1: errors found; 2: nothing could be read at all.
    """
    from rich.console import Console

    from tood.data import check_dataset, load_dataset
    from tood.errors import ToodError
    from tood.training import chosen_run

    chosen_run(model, size)  # what cannot be is told before anything is read
    names = [split] if split is not None else _splits_to_check(data)
    console = Console(emoji=False)
    reports = []
    for name in names:
        with progress_bar(f"checking {name}") as advance:
            report = check_dataset(data, name, exif=exif, progress=advance)
        _show(report, console, show_all)
        if report.annotated:
            with suppress(ToodError):  # its errors are told above
                say_boxes(load_dataset(data, name, images_required=False), model, size, console)
        reports.append(report)
    if json_file is not None:
        write_json(json_file, [report.to_dict() for report in reports])
        console.print(f"report: {json_file}", highlight=False, markup=False, soft_wrap=True)
    if not all(report.ok for report in reports):
        raise typer.Exit(ERRORS_FOUND)


@app.command()
def convert(
    data: Data,
    out: Annotated[Path, typer.Argument(help="Folder to write; appears whole or not at all.", metavar="OUT")],
    to: Annotated[DatasetFormat, typer.Option("--to", help="Format to write.")],
    split: OnlySplits = None,
    exif: Exif = "auto",
    images: Images = ImageTransfer.HARDLINK,
    overwrite: Overwrite = False,
) -> None:
    """Write a dataset in another format, and tell what that format cannot hold."""
    from rich.console import Console

    from tood.data import convert_dataset

    with progress_bar("converting") as advance:
        report = convert_dataset(
            data,
            out,
            to,
            splits=split or None,
            exif=exif,
            transfer=images,
            overwrite=overwrite,
            progress=advance,
        )
    console = Console(emoji=False)
    for name, count in report.images.items():
        told = f"{name}: {counted(count, 'image')}, {counted(report.boxes[name], 'box', 'boxes')}"
        console.print(told, highlight=False, markup=False)
    for sentence in report.lost:
        console.print(f"note: {sentence}", highlight=False, markup=False)
    console.print(f"written: {report.out} ({report.format})", highlight=False, markup=False, soft_wrap=True)


app.command()(stats)
app.command()(split)
app.command()(bench)


def _splits_to_check(data: Path) -> list[str]:
    """All splits, but no image twice: `trainval` is train and val."""
    from tood.data import available_splits

    names = list(available_splits(data))
    return [name for name in names if name != "trainval" or not {"train", "val"} <= set(names)]


def _show(report: CheckReport, console: Console, show_all: bool) -> None:
    from rich.markup import escape
    from rich.table import Table

    table = Table(title=escape(f"{report.root}: {report.split} ({report.format})"), show_header=False)
    table.add_column()
    table.add_column(justify="right")
    for label, value in _figures(report):
        table.add_row(label, value)
    console.print(table)
    for note in report.notes:
        console.print(f"note: {note}", markup=False, highlight=False, soft_wrap=True)
    used = [(name, count) for name, count in report.boxes_per_class if count]
    if used:
        told = ", ".join(f"{name} {count:,}" for name, count in sorted(used, key=lambda item: -item[1]))
        console.print(
            f"boxes by class ({len(used)} of {counted(len(report.boxes_per_class), 'class', 'classes')}): {told}",
            markup=False,
            highlight=False,
        )
    for severity, colour in zip(SEVERITIES, ("red", "yellow", "cyan"), strict=True):
        kinds: dict[str, list[Problem]] = {}
        for problem in report.problems:
            if problem.severity == severity:
                kinds.setdefault(problem.kind, []).append(problem)
        for kind, problems in kinds.items():
            console.print(f"[{colour}]{severity}[/{colour}] {kind}: {len(problems)}", highlight=False)
            for problem in problems if show_all else problems[:_SHOWN]:
                console.print(f"  {problem}", markup=False, highlight=False, soft_wrap=True)
            if not show_all and len(problems) > _SHOWN:
                console.print(f"  ... and {len(problems) - _SHOWN} more (--all lists them)", highlight=False)
    counts = {severity: len(report.of(severity)) for severity in SEVERITIES}
    told = ", ".join(f"{count} {severity}{'' if count == 1 else 's'}" for severity, count in counts.items())
    console.print(f"{report.split}: {told}", highlight=False, markup=False)


def _figures(report: CheckReport) -> Iterator[tuple[str, str]]:
    yield "images", f"{report.images:,}"
    yield "  unreadable or missing", f"{report.unreadable:,}"
    yield "  without an object", f"{report.empty:,}" if report.annotated else "no annotations"
    yield "  grey", f"{report.grey:,}"
    yield "  sizes", f"{report.smallest[0]}x{report.smallest[1]} to {report.largest[0]}x{report.largest[1]}"
    yield "boxes", f"{report.boxes:,}"
    yield "  crowds" if report.format != "voc" else "  difficult", f"{report.crowds:,}"
    yield "  clipped", f"{report.clipped:,}"
    yield "boxes dropped", f"{report.dropped:,}"
    yield "classes", f"{len(report.boxes_per_class):,}"
