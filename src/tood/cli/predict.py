"""`tood predict`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TextIO

import typer

from tood.cli.options import FILES, HOW, Device, Precision, Threads

if TYPE_CHECKING:
    from tood.errors import ToodError
    from tood.inference import Detector
    from tood.structures import Detections


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
        typer.Option(
            help="A model's name (its published weights are fetched once), a file of weights, the folder of a training "
            "run, or hf://OWNER/NAME."
        ),
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
    out: Annotated[Path, typer.Option(help="Folder to write to.", rich_help_panel=FILES)] = Path("runs/predict"),
    save_images: Annotated[
        bool, typer.Option("--save-images/--no-save-images", help="Write annotated pictures.", rich_help_panel=FILES)
    ] = True,
    json: Annotated[bool, typer.Option("--json", help="Write OUT/predictions.json.", rich_help_panel=FILES)] = False,
    csv: Annotated[bool, typer.Option("--csv", help="Write OUT/predictions.csv.", rich_help_panel=FILES)] = False,
) -> None:
    """Find objects in pictures.

    Boxes in json and CSV are x1 y1 x2 y2 in pixels of the picture.

    A picture that cannot be read is reported at the end, after all others, with exit code 2.

    Published weights are kept in the folder that TOOD_CACHE names, else in the system's place for caches. Where the
    web is out of reach, TOOD_WEIGHTS_MIRROR may name a server that has copies: https://mirror.example/weights.

    Examples:

    tood predict photo.jpg

    tood predict --model runs/x/best.safetensors photo.jpg

    tood predict --model runs/x pictures "more/**/*.png" --json --no-save-images
    """
    from tood.errors import ToodError
    from tood.inference import Detector, SourceConfig, expand
    from tood.machine import busy_advice

    detector = Detector(model, device, threshold, precision=precision, sources=SourceConfig(exif=exif))
    # In one line: errors have lines of their own.
    told = (f"{detector.device}, {detector.precision}", busy_advice())
    typer.echo("; ".join(filter(None, told)), err=True)
    failures: list[ToodError] = []
    images: list[Any] = []
    for source in sources:
        try:
            images += [image.content for image in expand(source)]
        except ToodError as error:
            failures.append(error)
    found = _run(detector, images, batch_size, failures)
    done = _write(found, [str(image) for image in images], out, save_images, json, csv)
    if done and (save_images or json or csv):
        typer.echo(f"{done:,} {'picture' if done == 1 else 'pictures'} done. Results: {out}")
    for failure in failures:
        typer.echo(f"tood: {failure}", err=True)
    if failures:
        raise typer.Exit(2)


def _run(detector: Detector, images: list[Any], batch_size: int, failures: list[ToodError]) -> Iterator[Detections]:
    """Detections of every image that can be read, with a line or a bar for the person; errors are appended."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    many = len(images) > 20
    columns = (TextColumn("pictures"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True, disable=not many) as bar:
        task = bar.add_task("pictures", total=len(images))

        def fail(_name: str, error: ToodError) -> None:
            failures.append(error)
            bar.advance(task)

        for result in detector.stream(images, keep_image=True, batch_size=batch_size, on_error=fail):
            bar.advance(task)
            if not many:
                typer.echo(f"{result.path}: {_summary(result)}")
            yield result


def _summary(result: Detections) -> str:
    counts = Counter(result.names)
    return ", ".join(f"{count} {name}" for name, count in counts.most_common()) or "nothing found"


def _write(
    found: Iterator[Detections], sources: list[str], out: Path, save_images: bool, as_json: bool, as_csv: bool
) -> int:
    """Writes what is asked for as the results come; nothing, not even the folder, if none does."""
    import csv
    import json

    from tood.plots import draw_detections, write_image

    done = 0
    names = _PictureNames(out, sources)
    with ExitStack() as files:
        json_file: TextIO | None = None
        table: Any = None
        for result in found:
            assert result.image is not None
            if done == 0 and as_json:
                json_file = files.enter_context(_text_file(out / "predictions.json"))
            if done == 0 and as_csv:
                table = csv.writer(files.enter_context(_text_file(out / "predictions.csv")), lineterminator="\n")
                table.writerow(["image", "name", "label", "score", "x1", "y1", "x2", "y2"])
            if json_file is not None:
                json_file.write(("[\n" if done == 0 else ",\n") + json.dumps(_entry(result), ensure_ascii=False))
            if table is not None:
                for one in _entry(result)["detections"]:
                    table.writerow([result.path, one["name"], one["label"], one["score"], *one["box"]])
            if save_images:
                write_image(names.next(str(result.path)), draw_detections(result.image, result))
            done += 1
        if json_file is not None:
            json_file.write("\n]\n")
    return done


def _entry(result: Detections) -> dict[str, Any]:
    assert result.image is not None
    height, width = result.image.shape[:2]
    rounded = [
        {**one, "box": [round(side, 2) for side in one["box"]], "score": round(one["score"], 4)}
        for one in result.to_dicts()
    ]
    return {"image": result.path, "width": width, "height": height, "detections": rounded}


class _PictureNames:
    """A free name in the output folder for every picture: the source's own, numbered where it is taken."""

    def __init__(self, out: Path, sources: list[str]) -> None:
        self.out = out
        # A picture must never replace the photograph that it was made of.
        self.taken = {str(Path(source).resolve()) for source in sources}

    def next(self, source: str) -> Path:
        from urllib.parse import unquote, urlsplit

        from tood.inference import is_url

        name = Path(unquote(urlsplit(source).path) if is_url(source) else source)
        stem = name.stem or "picture"
        suffix = ".jpg" if name.suffix.lower() in (".jpg", ".jpeg", ".jpe") else ".png"
        path, number = self.out / f"{stem}{suffix}", 1
        while str(path.resolve()) in self.taken:
            number += 1
            path = self.out / f"{stem}_{number}{suffix}"
        self.taken.add(str(path.resolve()))
        return path


@contextmanager
def _text_file(path: Path) -> Iterator[TextIO]:
    """A text file to fill bit by bit, which appears when it is complete, or never."""
    from tood.whole_file import whole_file

    with (
        whole_file(path) as temporary,
        temporary.open("w", encoding="utf-8", errors="backslashreplace", newline="") as file,
    ):
        yield file
