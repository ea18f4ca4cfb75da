"""`tood predict` in this process: pictures, json and CSV in a folder, whole files all the time."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from tood.cli.options import OVERLAP, model_identity
from tood.cli.resuming import say_resumed
from tood.progress_bar import progress_bar

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from tood.cli.predict import PredictOptions
    from tood.errors import ToodError
    from tood.inference import Detector
    from tood.manifest import Manifest
    from tood.structures import Detections


@dataclass(frozen=True)
class LocalOptions:
    """What only this process does, and not a cluster; see the options of `tood predict`."""

    out: Path
    save_images: bool
    json: bool
    csv: bool
    tiles: bool
    tile_size: int | None
    overlap: float

    @property
    def says_tiles(self) -> bool:
        """Whether it is said how tiles are to be."""
        return self.tile_size is not None or self.overlap != OVERLAP


def predict_here(asked: PredictOptions, local: LocalOptions) -> None:
    """Looks at all pictures; ends with exit code 2 where one could not be read."""
    from tood.cli.prediction_folder import Outputs, PredictionFolder
    from tood.cli.tiled_pictures import TiledPictures, is_beyond_limit
    from tood.errors import ToodError
    from tood.inference import Detector, SourceConfig, TileConfig
    from tood.machine import busy_advice
    from tood.stop import StopSignal

    detector = Detector(
        asked.model, asked.device, asked.threshold, precision=asked.precision, sources=SourceConfig(exif=asked.exif)
    )
    # In one line: errors have lines of their own.
    start = (f"{detector.device}, {detector.precision}", busy_advice())
    typer.echo("; ".join(filter(None, start)), err=True)
    failures: list[ToodError] = []
    images = _images(asked.sources, failures)
    kept = local.save_images or local.json or local.csv
    if asked.resume and not kept:
        raise ToodError("--resume goes on with what is written: leave it out, or ask for pictures, --json or --csv")
    settings = {
        "model": model_identity(asked.model),
        "threshold": asked.threshold,
        "batch size": asked.batch_size,
        "device": detector.device.type,
        "precision": detector.precision,
        "exif": asked.exif,
        "pictures": local.save_images,
        "tiles": [local.tile_size, local.overlap] if local.tiles or local.says_tiles else None,
    }
    if local.says_tiles and not local.tiles and images and not any(map(is_beyond_limit, images)):
        raise ToodError(
            "--tile-size and --overlap are of pictures that are looked at by tiles, and none of these has to be: give "
            "--tiles, too, or leave them out"
        )
    names = [str(image) for image in images]
    outputs = Outputs(local.json, local.csv)
    begun = PredictionFolder(local.out, names, settings, outputs, asked.batch_size, resume=asked.resume, writes=kept)
    with StopSignal() as stop, begun as folder:
        say_resumed(folder.done, "pictures", resume=asked.resume, found_unfinished=folder.found_unfinished)
        to_do = [images[number] for number in folder.to_do]
        large = set(to_do if local.tiles else filter(is_beyond_limit, to_do))
        ordinary = [image for image in to_do if image not in large]
        wanted = (image for image in ordinary if not stop.number)
        failed_before, answered = len(failures), 0
        results = _run(detector, wanted, len(ordinary), asked.batch_size, failures)
        while (result := stop.next_of(results)) is not None:
            answered += 1
            if kept:
                folder.add(result, _drawn(result) if local.save_images else None)
        if large:
            by_tiles = TiledPictures(
                detector,
                TileConfig(local.tile_size, local.overlap),
                asked.batch_size,
                settings,
                folder,
                local.save_images,
                resume=asked.resume,
            )
            answered += by_tiles.look_at(
                [image for image in to_do if image in large], failures, stop, told=not local.tiles
            )
        folder.complete = answered + len(failures) - failed_before == len(to_do)
        folder.failed = bool(failures)
    done = folder.done
    if done and kept:
        told = f"{done:,} {'picture' if done == 1 else 'pictures'}"
        typer.echo(
            f"{told} done. Results: {local.out}" if folder.complete else f"{told} of {len(images):,} done: {local.out}"
        )
    for failure in failures:
        typer.echo(f"tood: {failure}", err=True)
    if not folder.complete:
        advice = "; the same command with --resume does the rest" if kept else ""
        typer.echo(f"tood: stopped{advice}", err=True)
        raise typer.Exit(128 + stop.number)
    if failures:
        if done and kept:
            typer.echo("tood: the same command with --resume tries what failed again", err=True)
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


def _drawn(result: Detections) -> NDArray[np.uint8]:
    from tood.plots import draw_detections

    assert result.image is not None
    return draw_detections(result.image, result)
