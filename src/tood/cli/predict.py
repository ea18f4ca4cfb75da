"""`tood predict`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tood.cli.options import FILES, HOW, MODEL_HELP, Device, Precision, Threads, model_identity, optional
from tood.progress_bar import progress_bar

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from tood.cli.prediction_folder import PredictionFolder
    from tood.errors import ToodError
    from tood.inference import Detector
    from tood.manifest import Manifest
    from tood.stop import StopSignal
    from tood.structures import Detections

TILES = "Large pictures"
_OVERLAP = 0.2
# Seconds that a picture which is under way gets after Ctrl-C.
_PATIENCE = 3.0


def predict(
    sources: Annotated[
        list[str],
        typer.Argument(
            metavar="SOURCE...",
            help="Images: files, folders (with their sub-folders), glob patterns in quotes, http(s) URLs.",
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
    ] = _OVERLAP,
    out: Annotated[Path, typer.Option(help="Folder to write to.", rich_help_panel=FILES)] = Path("runs/predict"),
    save_images: Annotated[
        bool, typer.Option("--save-images/--no-save-images", help="Write annotated pictures.", rich_help_panel=FILES)
    ] = True,
    json: Annotated[bool, typer.Option("--json", help="Write OUT/predictions.json.", rich_help_panel=FILES)] = False,
    csv: Annotated[bool, typer.Option("--csv", help="Write OUT/predictions.csv.", rich_help_panel=FILES)] = False,
    resume: Annotated[
        bool,
        typer.Option(
            "--resume",
            help="Go on with the same run that was stopped in OUT, if there is one: its pictures are not done again.",
            rich_help_panel=FILES,
        ),
    ] = False,
) -> None:
    """Find objects in pictures.

    Boxes in json and CSV are x1 y1 x2 y2 in pixels of the picture.

    A picture that cannot be read is reported at the end, after all others, with exit code 2.

    A picture of more than 200 million pixels is refused, unless TOOD_MAX_PIXELS allows more (here as in every command);
    a TIFF file of that size (GeoTIFF and whole-slide pictures, too) is looked at by tiles, and drawn smaller.
    Earlier results in OUT are replaced, no other file is. Ctrl-C keeps what was found: --resume does the rest.

    Published weights are kept in the folder that TOOD_CACHE names, else in the system's place for caches. Where the
    web is out of reach, TOOD_WEIGHTS_MIRROR may name a server that has copies: https://mirror.example/weights.

    Examples:

    tood predict photo.jpg

    tood predict --model runs/x/best.safetensors photo.jpg

    tood predict --model runs/x pictures "more/**/*.png" --json --no-save-images
    """
    from tood.cli.prediction_folder import Outputs, PredictionFolder
    from tood.cli.tiled_pictures import TiledPictures, is_beyond_limit
    from tood.errors import ToodError
    from tood.inference import Detector, SourceConfig, TileConfig
    from tood.machine import busy_advice
    from tood.stop import StopSignal

    detector = Detector(model, device, threshold, precision=precision, sources=SourceConfig(exif=exif))
    # In one line: errors have lines of their own.
    start = (f"{detector.device}, {detector.precision}", busy_advice())
    typer.echo("; ".join(filter(None, start)), err=True)
    failures: list[ToodError] = []
    images = _images(sources, failures)
    kept = save_images or json or csv
    if resume and not kept:
        raise ToodError("--resume goes on with what is written: leave it out, or ask for pictures, --json or --csv")
    settings = {
        "model": model_identity(model),
        "threshold": threshold,
        "batch size": batch_size,
        "device": detector.device.type,
        "precision": detector.precision,
        "exif": exif,
        "pictures": save_images,
        "tiles": [tile_size, overlap] if tiles or tile_size or overlap != _OVERLAP else None,
    }
    names = [str(image) for image in images]
    outputs = Outputs(json, csv)
    begun = PredictionFolder(out, names, settings, outputs, batch_size, resume=resume, writes=kept)
    with StopSignal() as stop, begun as folder:
        _say_start(folder, resume)
        to_do = [images[number] for number in folder.to_do]
        large = set(to_do if tiles else filter(is_beyond_limit, to_do))
        ordinary = [image for image in to_do if image not in large]
        wanted = (image for image in ordinary if not stop.number)
        failed_before, answered = len(failures), 0
        results = _run(detector, wanted, len(ordinary), batch_size, failures)
        while (result := _next(results, stop)) is not None:
            answered += 1
            if kept:
                folder.add(result, _drawn(result) if save_images else None)
        if large:
            run = TiledPictures(
                detector, TileConfig(tile_size, overlap), batch_size, settings, folder, save_images, resume=resume
            )
            answered += run.look_at([image for image in to_do if image in large], failures, stop, told=not tiles)
        folder.complete = answered + len(failures) - failed_before == len(to_do)
    done = folder.done
    if done and kept:
        told = f"{done:,} {'picture' if done == 1 else 'pictures'}"
        typer.echo(f"{told} done. Results: {out}" if folder.complete else f"{told} of {len(images):,} done: {out}")
    for failure in failures:
        typer.echo(f"tood: {failure}", err=True)
    if not folder.complete:
        advice = "; the same command with --resume does the rest" if kept else ""
        typer.echo(f"tood: stopped{advice}", err=True)
        raise typer.Exit(128 + stop.number)
    if failures:
        raise typer.Exit(2)


def _images(sources: Sequence[str], failures: list[ToodError]) -> list[Any]:
    """Paths and addresses of all images that the sources stand for, but none that `tood predict` drew; errors are
    appended.

    Drawn pictures that are named one by one are taken where nothing else is: then they are what is meant.
    """
    from tood.cli.prediction_folder import written_before
    from tood.errors import ToodError
    from tood.inference import expand, is_many, is_url
    from tood.inference.sources import passed_over

    found: list[tuple[Any, bool, bool]] = []
    manifests: dict[Path, Manifest] = {}

    def is_drawn(path: Path) -> bool:
        if path.parent not in manifests:
            manifests[path.parent] = written_before(path.parent)
        return manifests[path.parent].holds(path.parent, path.name)

    for source in sources:
        try:
            many = is_many(source)
            for image in expand(source):
                drawn = not is_url(image.name) and is_drawn(Path(image.name))
                found.append((image.content, drawn, many))
            if many and (line := passed_over(source)):
                typer.echo(line, err=True)
        except ToodError as error:
            failures.append(error)
    only_drawn = all(drawn for _, drawn, _ in found)
    taken = [content for content, drawn, many in found if not drawn or (only_drawn and not many)]
    left = len(found) - len(taken)
    if left:
        pictures = "picture that tood predict drew is" if left == 1 else "pictures that tood predict drew are"
        typer.echo(f"{left:,} {pictures} passed over", err=True)
        if not taken and not failures:
            failures.append(ToodError("there is no other picture: name what to look at"))
    return taken


def _say_start(folder: PredictionFolder, resume: bool) -> None:
    if resume:
        typer.echo(f"{folder.done:,} done before" if folder.done else "nothing to resume: from the start", err=True)
    elif folder.found_unfinished:
        typer.echo("a run that was stopped here is begun anew (with --resume it would go on)", err=True)


def _run(
    detector: Detector, images: Iterable[Any], count: int, batch_size: int, failures: list[ToodError]
) -> Iterator[Detections]:
    """Detections of every image that can be read, with a line or a bar for the person; errors are appended."""
    from tood.cli.tiled_pictures import summary

    many, failed_before, found = count > 20, len(failures), 0
    with progress_bar("pictures", count, shown=many) as move:

        def fail(_name: str, error: ToodError) -> None:
            failures.append(error)
            move(found + len(failures) - failed_before, None)

        for result in detector.stream(images, keep_image=True, batch_size=batch_size, on_error=fail):
            found += 1
            move(found + len(failures) - failed_before, None)
            if not many:
                typer.echo(f"{result.path}: {summary(result)}")
            yield result


def _next(results: Iterator[Detections], stop: StopSignal) -> Detections | None:
    """The next result; None after the last one, and where it does not come soon after the person wants to stop."""
    try:
        with stop.waiting(_PATIENCE):
            return next(results, None)
    except KeyboardInterrupt:
        return None


def _drawn(result: Detections) -> NDArray[np.uint8]:
    from tood.plots import draw_detections

    assert result.image is not None
    return draw_detections(result.image, result)
