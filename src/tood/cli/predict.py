"""`tood predict`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import typer

from tood.choices import PredictionPrecision
from tood.cli.options import FILES, HOW, MODEL_HELP, OVERLAP, Device, Precision, Threads, optional

TILES = "Large pictures"
PICTURES_A_FILE = 1000


@dataclass(frozen=True)
class PredictOptions:
    """What is asked for whoever does it; see the options of `tood predict`."""

    sources: Sequence[str]
    model: str
    threshold: float
    batch_size: int
    device: str | None
    precision: PredictionPrecision
    exif: bool
    resume: bool


def predict(
    sources: Annotated[
        list[str],
        typer.Argument(
            metavar="SOURCE...",
            help="Images: files, folders (with their sub-folders), glob patterns in quotes, http(s) URLs; with "
            "--engine ray no patterns, but buckets (s3://...) and parquet files with pictures or addresses in them.",
            show_default=False,
        ),
    ],
    model: Annotated[
        str,
        typer.Option(help=MODEL_HELP),
    ] = "tood_r50_fpn_1x",
    threshold: Annotated[
        float, typer.Option(min=0, max=1, help="Least score of a detection.", rich_help_panel=HOW)
    ] = 0.3,
    batch_size: Annotated[
        int,
        typer.Option(
            "--batch-size",
            "--batch",
            min=1,
            help="Pictures computed at once; they are padded to one size, which may change scores a little.",
            rich_help_panel=HOW,
        ),
    ] = 1,
    device: Device = None,
    precision: Precision = "auto",
    threads: Threads = None,
    exif: Annotated[
        bool,
        typer.Option(
            "--exif",
            help="Turn photographs as their EXIF orientation says; else pixels as stored.",
            rich_help_panel=HOW,
        ),
    ] = False,
    engine: Annotated[
        Literal["local", "ray"],
        typer.Option(
            help="Who does it: this process, or the workers of a Ray cluster (the one that RAY_ADDRESS names, else one "
            "of this machine's cores), which write parquet alone. ray needs pip install 'tood\\[ray]'.",
            rich_help_panel=HOW,
        ),
    ] = "local",
    workers: Annotated[
        int | None,
        optional("Processes of --engine ray, of --threads cores each. Left out: all there is room for.", HOW, least=1),
    ] = None,
    pictures_a_file: Annotated[
        int | None,
        optional(f"Pictures in each parquet file of --engine ray. Left out: {PICTURES_A_FILE:,}.", FILES, least=1),
    ] = None,
    tiles: Annotated[
        bool,
        typer.Option(
            "--tiles",
            help="Look at each picture tile by tile, for small objects in large pictures; TIFF files beyond the limit "
            "of pixels are always looked at so.",
            rich_help_panel=TILES,
        ),
    ] = False,
    tile_size: Annotated[
        int | None, optional("Side of a tile in pixels. Left out: the model's input.", TILES, least=32)
    ] = None,
    overlap: Annotated[
        float,
        typer.Option(
            min=0, max=0.8, help="Share of its side that a tile has in common with the next.", rich_help_panel=TILES
        ),
    ] = OVERLAP,
    out: Annotated[
        str, typer.Option(help="Folder to write to; with --engine ray also s3://...", rich_help_panel=FILES)
    ] = "runs/predict",
    save_images: Annotated[
        bool | None,
        typer.Option(
            "--save-images/--no-save-images",
            help="Write annotated pictures. Left out: yes, but for --engine ray.",
            rich_help_panel=FILES,
            show_default=False,
        ),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Write OUT/predictions.json.", rich_help_panel=FILES)] = False,
    csv: Annotated[bool, typer.Option("--csv", help="Write OUT/predictions.csv.", rich_help_panel=FILES)] = False,
    resume: Annotated[
        bool,
        typer.Option(
            "--resume",
            help="Go on with the same run that was stopped in OUT, or had pictures that could not be read, if there is "
            "one: what is done is not done again.",
            rich_help_panel=FILES,
        ),
    ] = False,
) -> None:
    """Find objects in pictures.

    Boxes in json and CSV are x1 y1 x2 y2 in pixels of the picture.

    A picture that cannot be read is reported at the end, after all others, with exit code 2. With --engine ray it is a
    row whose column `error` says why, and how many there are is told at the end.

    A picture of more than 200 million pixels is refused, unless TOOD_MAX_PIXELS allows more (here as in every command);
    a TIFF file of that size (GeoTIFF and whole-slide pictures, too) is looked at by tiles, and drawn smaller.
    Earlier results in OUT are replaced, no other file is. Ctrl-C keeps what was found: --resume does the rest.

    Published weights are kept in the folder that TOOD_CACHE names, else in the system's place for caches. Where the
    web is out of reach, TOOD_WEIGHTS_MIRROR may name a server that has copies: https://mirror.example/weights.

    Examples:

    tood predict photo.jpg

    tood predict --model runs/x/best.safetensors photo.jpg

    tood predict --model runs/x pictures "more/**/*.png" --json --no-save-images

    tood predict --model runs/x s3://bucket/pictures --engine ray --out s3://bucket/found
    """
    asked = PredictOptions(sources, model, threshold, batch_size, device, precision, exif, resume)
    if engine == "ray":
        from tood.cli.predict_cluster import predict_on_cluster

        _require_parquet_alone(
            {
                "--save-images": save_images,
                "--json": json,
                "--csv": csv,
                "--tiles": tiles,
                "--tile-size": tile_size is not None,
                "--overlap": overlap != OVERLAP,
            }
        )
        predict_on_cluster(asked, out, workers=workers, threads=threads, at_once=pictures_a_file or PICTURES_A_FILE)
        return
    from tood.cli.predict_local import LocalOptions, predict_here

    local = LocalOptions(
        out=_local_folder(sources, out, workers, pictures_a_file),
        save_images=save_images is not False,
        json=json,
        csv=csv,
        tiles=tiles,
        tile_size=tile_size,
        overlap=overlap,
    )
    predict_here(asked, local)


def _require_parquet_alone(options: Mapping[str, bool | None]) -> None:
    asked = [name for name, wanted in options.items() if wanted]
    if asked:
        from tood.errors import ToodError

        raise ToodError(f"--engine ray looks at whole pictures and writes parquet alone: leave out {', '.join(asked)}")


def _local_folder(sources: Sequence[str], out: str, workers: int | None, pictures_a_file: int | None) -> Path:
    """The folder to write to, where nothing is asked of this process that only a cluster does."""
    from tood.errors import ToodError
    from tood.web import is_remote

    if workers is not None:
        raise ToodError("--workers is of --engine ray: here --threads says how many cores are used")
    if pictures_a_file is not None:
        raise ToodError("--pictures-a-file is of --engine ray: here no parquet is written")
    for place in (*sources, out):
        if is_remote(place):
            raise ToodError(f"{place} is read and written with --engine ray alone (pip install 'tood[ray]')")
    return Path(out)
