"""Options that several commands share."""

from __future__ import annotations

from typing import Annotated

import typer

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
