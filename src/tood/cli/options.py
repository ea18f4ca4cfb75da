"""Options that several commands share."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated, Literal

import typer

Data = Annotated[Path, typer.Argument(help="COCO, YOLO or VOC folder, or a COCO json or YOLO yaml.", metavar="DATA")]

HOW, FILES = "How", "Files"

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
    Literal["auto", "fp32", "bf16"],
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


ExifChoice = Literal["auto", "stored", "turned"]
Exif = Annotated[
    ExifChoice,
    typer.Option(
        help="What the labels of pictures with an EXIF orientation were made on: the pixels as stored, or the turned "
        "picture. auto: by the size in the labels where it tells, else as stored, with a warning."
    ),
]


class Images(str, Enum):
    """How image files get into the new folder."""

    HARDLINK = "hardlink"
    COPY = "copy"
    SYMLINK = "symlink"
