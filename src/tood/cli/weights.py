"""`tood weights import | export | push`."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from tood.cli.options import optional

app = typer.Typer(
    help="Bring published weights in, take weights out in the published layouts, and publish your own.",
    no_args_is_help=True,
    rich_markup_mode="rich",
)


class Layout(str, Enum):
    """A layout of published files."""

    ORIGINAL = "original"
    MMDET = "mmdet"
    EASYCV = "easycv"
    PADDLE = "paddle"


class Anchor(str, Enum):
    """What a box is predicted from."""

    FREE = "free"
    BASED = "based"


Source = Annotated[
    Path,
    typer.Argument(help="A .pth, .pt, .pdparams or .safetensors of any layout; it is never executed.", metavar="FILE"),
]
Force = Annotated[bool, typer.Option("--force", help="Overwrite OUT.")]


@app.command(name="import")
def import_file(
    source: Source,
    out: Annotated[Path, typer.Argument(help="The safetensors file to write.", metavar="OUT")],
    anchor: Annotated[
        Anchor | None,
        optional(
            "Whether its boxes come from points or from anchors, which its tensors do not show. Left out: as its "
            "configuration or its name says, else free."
        ),
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set", help="What else its tensors do not show, such as head.norm_groups=8.", metavar="KEY=VALUE"
        ),
    ] = None,
    force: Force = False,
) -> None:
    """Write a detector's weights of any layout as ours.

    The original TOOD repository's, MMDetection 2.x and 3.x, PaddleDetection's, plain state dicts: the architecture is
    read from the tensors, the class names from the file.

    Example: tood weights import tood_r50_fpn_1x_coco.pth tood_r50.safetensors
    """
    from tood.engines import require_weights
    from tood.weights import import_weights

    require_weights(source)
    _check_out(out, (".safetensors",), force)
    changes = [*([f"head.anchor={anchor.value}"] if anchor else []), *(settings or [])]
    done = import_weights(source, out, changes)
    typer.echo(f"wrote {out}: {done}")


@app.command(name="export")
def export_file(
    source: Source,
    out: Annotated[
        Path, typer.Argument(help="The .pth file to write, or .pdparams of Paddle's layout.", metavar="OUT")
    ],
    layout: Annotated[
        Layout | None,
        optional("Whose tensor names. Left out: those that the code which published such networks reads."),
    ] = None,
    force: Force = False,
) -> None:
    """Write a detector's weights as the .pth file that the published code reads.

    `tood weights import` reads it back without loss.

    Example: tood weights export runs/x/best.safetensors x.pth --layout mmdet
    """
    from tood.engines import require_weights
    from tood.weights import export_weights

    require_weights(source)
    _check_out(out, (".pth", ".pt", ".pdparams"), force)
    done = export_weights(source, out, layout.value if layout else None)
    typer.echo(f"wrote {out}: {done}")


@app.command(name="push")
def push(
    source: Annotated[
        str,
        typer.Argument(help="A file of weights, the folder of a training run, or a model's name.", metavar="MODEL"),
    ],
    target: Annotated[
        str,
        typer.Argument(help="hf://OWNER/NAME, made if need be, or file://FOLDER, a new one.", metavar="TARGET"),
    ],
    report: Annotated[
        Path | None,
        optional("metrics.json of `tood eval`, for the card. Left out: the AP that training measured."),
    ] = None,
    dataset: Annotated[str | None, optional("What those figures were measured on, in a few words.")] = None,
    title: Annotated[str | None, optional("Title of the card. Left out: the run's name.")] = None,
    licence: Annotated[
        str | None,
        optional("Of the weights, such as apache-2.0. Left out: the card names none.", None, "--licence", "--license"),
    ] = None,
    private: Annotated[bool, typer.Option("--private", help="A new repository is seen by you alone.")] = False,
) -> None:
    """Publish weights with a card that has their figures, their cost and how they are used.

    Anybody then loads them by that address: Detector("hf://OWNER/NAME"), tood predict --model, tood train --from.
    The hub wants to know you: `hf auth login` once, or the environment's HF_TOKEN.

    Example: tood weights push runs/cells hf://ann/cells --report results/metrics.json --dataset "BCCD, test split"
    """
    from tood.engines import require_weights
    from tood.weights import PushConfig, push_weights

    require_weights(source)
    done = push_weights(source, target, PushConfig(title, licence, dataset, report, private))
    typer.echo(f"pushed to {done}")


def _check_out(out: Path, suffixes: tuple[str, ...], force: bool) -> None:
    from tood.errors import ToodError

    if out.suffix not in suffixes or out.is_dir():
        raise ToodError(f"{out} is no name for what is written: name a file that ends in {' or '.join(suffixes)}")
    if out.exists() and not force:
        raise ToodError(f"{out} exists already: name another file, or overwrite it with --force")
