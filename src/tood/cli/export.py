"""`tood export` and `tood bench`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tood import choices
from tood.cli.options import FILES, HOW, Device, Threads, optional

if TYPE_CHECKING:
    from tood.data import DetectionDataset
    from tood.export import Certificate, ExportConfig, Proof

WHAT = "What the file is"
PROOF = "What it is measured on"

_MODEL_HELP = (
    "A model's name (its published weights are fetched once), a file of weights, the folder of a training run, or "
    "hf://OWNER/NAME."
)
Model = Annotated[str, typer.Argument(help=_MODEL_HELP, metavar="MODEL", show_default=False)]


def export(
    model: Annotated[
        str,
        typer.Argument(
            help=f"{_MODEL_HELP} With --to triton also an .onnx file of `tood export`.",
            metavar="MODEL",
            show_default=False,
        ),
    ],
    to: Annotated[
        choices.ExportDestination,
        typer.Option(
            "--to",
            help="Kind of file: .onnx, OpenVINO's .xml, PyTorch's .pt2; triton: an .onnx in a model repository of "
            "NVIDIA's Triton Inference Server.",
            rich_help_panel=WHAT,
        ),
    ] = "onnx",
    raw: Annotated[
        bool,
        typer.Option(
            "--raw",
            help="Take whole pictures [B, H, W, 3] uint8 RGB of any size, instead of prepared images.",
            rich_help_panel=WHAT,
        ),
    ] = False,
    graph: Annotated[
        choices.ExportGraph,
        typer.Option(
            help="Where it ends: dense, before suppression; nms, with it inside; topk, the best of a head that gives "
            "each object once.",
            rich_help_panel=WHAT,
        ),
    ] = "dense",
    precision: Annotated[
        choices.ExportPrecision,
        typer.Option(help="Of convolutions; boxes and post-processing stay in fp32.", rich_help_panel=WHAT),
    ] = "fp32",
    size: Annotated[
        tuple[int, int] | None,
        typer.Option(
            help="Height and width of the input, fixed. Left out: any.",
            metavar="H W",
            rich_help_panel=WHAT,
            show_default=False,
        ),
    ] = None,
    batch: Annotated[
        int | None,
        optional(
            "Pictures in a batch, fixed: `tood` fills smaller ones with blanks. Left out: any number.", WHAT, least=1
        ),
    ] = None,
    dynamic: Annotated[
        bool, typer.Option("--dynamic", help="Any height and width, as where --size is left out.", rich_help_panel=WHAT)
    ] = False,
    opset: Annotated[int | None, optional("Version of ONNX's operators. Left out: 20.", WHAT)] = None,
    target: Annotated[
        choices.ExportTarget | None,
        optional("What an ONNX file is to run on; operators are chosen for it. Left out: onnxruntime.", WHAT),
    ] = None,
    data: Annotated[
        str | None,
        optional("Dataset to measure AP on, before and after. Left out: AP is not measured.", PROOF),
    ] = None,
    split: Annotated[
        str | None,
        optional("Split of it. Left out: the annotated test split, else the one for validation.", PROOF),
    ] = None,
    pictures: Annotated[
        str | None,
        optional(
            "Folder of pictures, or dataset (its split to train on), that results are compared with PyTorch's on. Left "
            "out: --data's, else built-in scenes of digits.",
            PROOF,
        ),
    ] = None,
    calibrate: Annotated[
        str | None,
        optional(
            "Dataset (its split to train on) or folder of pictures that int8 learns the range of values from.",
            PROOF,
        ),
    ] = None,
    allow_loss: Annotated[
        bool,
        typer.Option(
            "--allow-loss", help="Write the file even where it is beyond the tolerance.", rich_help_panel=PROOF
        ),
    ] = False,
    workers: Annotated[
        int | None,
        optional("Processes that load images of --data. Left out: as suits the machine.", HOW, least=0),
    ] = None,
    threads: Threads = None,
    out: Annotated[
        Path | None,
        optional(
            "File to write; with --to triton the model repository. Left out: MODEL's name with the ending of the "
            "format; triton.",
            FILES,
        ),
    ] = None,
    name: Annotated[
        str | None, optional("The model's name in Triton's repository. Left out: that of MODEL's file.", FILES)
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite OUT.", rich_help_panel=FILES)] = False,
) -> None:
    """Write a model as a file that other engines run, and a certificate of how far it is from PyTorch beside it.

    The certificate has the largest difference of boxes and scores over 3 shapes and 3 batch sizes, the AP before and
    after where --data is given, operators, versions and SHA-256. A file beyond the tolerance (fp32: 0.5 pixels, 0.001;
    int8: 1 % of the AP) is not written.

    `tood predict`, `tood eval` and `Detector` take the file as they take weights.

    Examples:

    tood export runs/x/best.safetensors --to onnx --data my_pictures

    tood export tood_r50_fpn_1x --to onnx --graph nms --raw --out tood.onnx

    tood export runs/x --to openvino --precision int8 --calibrate my_pictures --data my_pictures

    tood export runs/x --to triton --graph nms --raw --out repository --name cells
    """
    from tood.engines import is_exported
    from tood.errors import ToodError
    from tood.export import ExportConfig, Proof, certificate_files
    from tood.weights import locate_weights

    if dynamic and size is not None:
        raise ToodError("--size fixes height and width and --dynamic leaves them free: give one of them")
    if split is not None and data is None:
        raise ToodError("--split is of --data, which is missing: give the dataset too")
    _require_of_use(to, precision, opset, target, calibrate)
    config = ExportConfig("onnx" if to == "triton" else to, graph, raw, precision, size, batch)
    config = replace(config, opset=config.opset if opset is None else opset, target=target or config.target)

    def proof() -> Proof:
        dataset = None if data is None else _open(data, split)
        return Proof(dataset, pictures, calibrate, workers=workers)

    if to == "triton":
        if force:
            raise ToodError("--force overwrites files, not models of a repository: remove the old one, or give --name")
        own = Path(model) if is_exported(model) else _named(model, ".onnx")
        repository, called = out or Path("triton"), name or own.stem
        if is_exported(model):
            if config != ExportConfig() or (data, pictures, calibrate) != (None, None, None):
                raise ToodError(f"{model} is exported already and goes in as it is: leave out what it is to be")
            _into_repository(locate_weights(model).path, repository, called)
        else:
            _export_into_repository(model, repository, called, config, proof, allow_loss)
        return
    if name is not None:
        raise ToodError("--name is of models in Triton's repository: give --out, or --to triton")
    path = out or _named(model, config.suffix)
    numbers = (path.with_suffix(".bin"),) if config.format == "openvino" else ()
    for there in (path, *numbers, *certificate_files(path)):
        if there.exists() and not force:
            raise ToodError(f"{there} exists already: name another file with --out, or overwrite it with --force")
    certificate = _exported(model, path, config, proof(), allow_loss)
    typer.echo(f"wrote {path}: {certificate.bytes / 1e6:.1f} MB, {certificate.description.precision}")
    _tell(certificate)
    typer.echo(f"certificate: {certificate_files(path)[1]}")


def _require_of_use(
    to: choices.ExportDestination,
    precision: choices.ExportPrecision,
    opset: int | None,
    target: choices.ExportTarget | None,
    calibrate: str | None,
) -> None:
    """Raises a `ToodError` if an option is given that changes nothing of what is written."""
    from tood.errors import ToodError

    if to == "torch" and opset is not None:
        raise ToodError("--opset is of ONNX's operators, which PyTorch's program has none of: leave it out")
    if to in ("torch", "openvino") and target is not None:
        raise ToodError(f"--target is of ONNX files, and --to {to} writes none: leave it out, or take --to onnx")
    if precision != "int8" and calibrate is not None:
        raise ToodError(f"--calibrate is of int8, and {precision} is written: leave it out, or give --precision int8")


def _exported(model: str, path: Path, config: ExportConfig, proof: Proof, allow_loss: bool) -> Certificate:
    from tood.export import export_model, origin_of

    return export_model(
        origin_of(model),
        path,
        config,
        proof,
        allow_loss=allow_loss,
        say=lambda what: typer.echo(f"{what} ...", err=True),
    )


def _tell(certificate: Certificate) -> None:
    boxes, scores = certificate.largest
    typer.echo(f"largest difference from PyTorch: boxes {boxes:.2g} pixels, scores {scores:.2g}")
    if certificate.ap is not None:
        typer.echo(f"AP: {certificate.ap.before:.4f} before, {certificate.ap.after:.4f} after")
    for complaint in certificate.complaints:
        typer.echo(f"beyond the tolerance: {complaint}", err=True)


def _export_into_repository(
    model: str, repository: Path, name: str, config: ExportConfig, proof: Callable[[], Proof], allow_loss: bool
) -> None:
    """Writes the model's file where nobody looks, and from there into Triton's repository, with its certificate."""
    from tood.export.triton import MODEL_FILE, triton_folder
    from tood.whole_file import scratch_folder

    triton_folder(repository, name)  # what cannot be is told before the work
    with scratch_folder() as folder:
        path = folder / MODEL_FILE
        certificate = _exported(model, path, config, proof(), allow_loss)
        _into_repository(path, repository, name)
    _tell(certificate)


def _into_repository(onnx_file: Path, repository: Path, name: str) -> None:
    from tood.errors import quoted
    from tood.export import certificate_files
    from tood.export.triton import write_triton_repository

    papers = [path for path in certificate_files(onnx_file) if path.is_file()]
    target = write_triton_repository(onnx_file, repository, name, papers=papers)
    typer.echo(f"wrote {target}: serve it with tritonserver --model-repository {quoted(repository)}")


def bench(
    model: Model,
    picture: Annotated[
        Path | None, optional("Picture to run on. Left out: a built-in scene of the size of a photograph.", HOW)
    ] = None,
    repeats: Annotated[int, typer.Option(min=1, help="Times that each engine runs.", rich_help_panel=HOW)] = 10,
    calibrate: Annotated[
        str | None,
        optional("Dataset or folder of pictures that int8 learns from. Left out: int8 is not timed.", HOW),
    ] = None,
    device: Device = None,
    threads: Threads = None,
) -> None:
    """Time a model in every engine that is installed, on this machine, and say which one to take.

    PyTorch in fp32 and, where the hardware has it, bf16; ONNX Runtime and OpenVINO in fp32, with --calibrate in int8,
    and on a GPU in fp16. Files are those that `tood export` writes. From a picture's pixels to its boxes, one picture
    at a time. On the CPU always, and on the GPU where there is one or --device names it.

    Example: tood bench runs/x/best.safetensors
    """
    from rich.console import Console
    from rich.table import Table

    from tood.data import read_image
    from tood.export import advice, bench_engines, not_timed, origin_of
    from tood.inference import check_device
    from tood.machine import busy_advice

    place = check_device(device)
    pixels = _scene() if picture is None else read_image(picture)
    if busy := busy_advice():
        typer.echo(busy, err=True)
    rows = bench_engines(
        origin_of(model),
        pixels,
        repeats,
        place,
        lambda engine: typer.echo(f"{engine} ...", err=True),
        calibration=calibrate,
    )
    table = Table("engine", "ms a picture", "pictures/s")
    for row in rows:
        if row.seconds is None:
            table.add_row(row.engine, "-", row.problem)
        else:
            table.add_row(row.engine, f"{1000 * row.seconds:.1f}", f"{1 / row.seconds:.1f}")
    Console(emoji=False).print(table)
    typer.echo(advice(rows))
    if left_out := not_timed(rows):
        typer.echo(left_out)


def _named(model: str, suffix: str) -> Path:
    """Beside a file of weights under its name, in a run's folder, else where the person is."""
    path = Path(model).expanduser()
    if path.is_file():
        return path.with_suffix(suffix)
    if path.is_dir():
        return path / f"best{suffix}"
    return Path(model.removeprefix("hf://").replace("/", "_") + suffix)


def _open(data: str, split: str | None) -> DetectionDataset:
    from tood.data import load_dataset, pick_splits

    return load_dataset(data, split or pick_splits(data).evaluation)


def _scene() -> Any:
    import cv2

    from tood.export.sample_pictures import pictures_of

    return cv2.resize(pictures_of(None, 1)[0], (640, 480))
