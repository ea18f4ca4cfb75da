"""Options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from tood import choices

Data = Annotated[Path, typer.Argument(help="COCO, YOLO or VOC folder, or a COCO json or YOLO yaml.", metavar="DATA")]

HOW, FILES = "How", "Files"
# Share of its side that a tile has in common with the next.
OVERLAP = 0.2

MODEL_HELP = (
    "A model's name (its published weights are fetched once), a file of weights, the folder of a training run, "
    "hf://OWNER/NAME, or a file of `tood export`."
)

BatchSize = Annotated[
    int, typer.Option("--batch-size", "--batch", min=1, help="Images computed at once.", rich_help_panel=HOW)
]
Device = Annotated[
    str | None,
    typer.Option(
        help="cpu, cuda, cuda:1 or mps. Left out: a GPU where there is one.", rich_help_panel=HOW, show_default=False
    ),
]
Precision = Annotated[
    choices.PredictionPrecision,
    typer.Option(
        help="Of the network's arithmetic; boxes and scores always are fp32. auto: bf16 where the CPU has instructions "
        "for it (AP within 0.2), else fp32.",
        rich_help_panel=HOW,
    ),
]


def _settle(count: int | None) -> int | None:
    from tood.machine import limit_threads

    if count is not None:
        limit_threads(count)
    return count


Threads = Annotated[
    int | None,
    typer.Option(
        min=1,
        help="Threads that compute on the CPU. Left out: one a core, or as many as a container may use. Another number "
        "may change the last digits of results.",
        rich_help_panel=HOW,
        show_default=False,
        callback=_settle,
    ),
]


Exif = Annotated[
    choices.Exif,
    typer.Option(
        help="What the labels of pictures with an EXIF orientation were made on: the pixels as stored, or the turned "
        "picture. auto: by the size in the labels where it tells, else as stored, with a warning."
    ),
]
Images = Annotated[
    choices.ImageTransfer,
    typer.Option(help="Image files as hard links (copies where impossible), copies, or symlinks."),
]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace what was written into OUT before.")]
OnlySplits = Annotated[list[str] | None, typer.Option(help="Only this split (may be repeated); all if none.")]


def optional(
    help: str, panel: str | None = None, *names: str, least: int | None = None, metavar: str | None = None
) -> Any:
    """An option without a default of its own; `help` says what is taken where it is left out.

    Args:
        help: what it is.
        panel: title of the box of the help that lists it; None for the usual one.
        names: `--like-this`, where it is not the parameter's.
        least: the smallest number.
        metavar: what stands for its value in the help.
    """
    return typer.Option(*names, help=help, rich_help_panel=panel, show_default=False, min=least, metavar=metavar)


def model_identity(model: str) -> list[Any]:
    """What a model was called and which files those are: a run is resumed with the same."""
    from tood.file_identity import size_and_time
    from tood.weights import locate_weights

    return [model, *(number for path in locate_weights(model).files for number in size_and_time(str(path)) or ())]
