"""`tood serve`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tood.cli.options import HOW, MODEL_HELP, Device, Precision, optional

LIMITS, ACCESS = "Limits", "Access"

# A few large lanes beside each other do more pictures a second than all cores on one picture.
_FEW_CORES = 4


def serve(
    models: Annotated[
        list[str],
        typer.Argument(
            metavar="MODEL...",
            help=f"{MODEL_HELP} NAME=MODEL gives it a name of its own. The first answers where none is asked for.",
            show_default=False,
        ),
    ],
    host: Annotated[
        str, typer.Option(help="Address to listen at; 0.0.0.0 for all of this machine.", rich_help_panel=ACCESS)
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes a free one.", rich_help_panel=ACCESS)] = 8000,
    keys: Annotated[
        Path | None, optional("File of keys, one a line: who has none is refused.", ACCESS, "--keys")
    ] = None,
    allow_url: Annotated[
        list[str] | None,
        optional(
            "Host that pictures may be fetched from: example.com, *.example.com, 10.0.0.5:8080 (may be repeated). "
            "Private addresses only where they are named so themselves. Left out: none.",
            ACCESS,
        ),
    ] = None,
    threshold: Annotated[
        float | None, optional("Least score that is ever given. Left out: the model's own, which is low.", HOW)
    ] = None,
    device: Device = None,
    precision: Precision = "auto",
    lanes: Annotated[
        int | None,
        optional(
            "Pictures computed side by side on a CPU, each by its share of the cores. Left out: one a core, of many "
            "cores a quarter; 1 answers a single picture soonest.",
            HOW,
            least=1,
        ),
    ] = None,
    batch_size: Annotated[
        int,
        typer.Option(
            min=1,
            help="Pictures of equal shape computed at once, always just so many (blanks fill up). For GPUs.",
            rich_help_panel=HOW,
        ),
    ] = 1,
    batch_wait: Annotated[
        float, typer.Option(min=0, max=1000, help="Milliseconds that a batch waits to be full.", rich_help_panel=HOW)
    ] = 5.0,
    queue: Annotated[
        int, typer.Option(min=1, help="Pictures taken at a time; more get 429.", rich_help_panel=LIMITS)
    ] = 64,
    max_pictures: Annotated[int, typer.Option(min=1, help="In one request.", rich_help_panel=LIMITS)] = 32,
    max_megabytes: Annotated[
        float, typer.Option(min=0.001, max=1e6, help="Of a request.", rich_help_panel=LIMITS)
    ] = 32,
    max_megapixels: Annotated[
        float, typer.Option(min=0.001, max=1e6, help="Of a picture.", rich_help_panel=LIMITS)
    ] = 50,
    max_seconds: Annotated[
        float,
        typer.Option(min=0.1, help="For a request to arrive, and then to be answered.", rich_help_panel=LIMITS),
    ] = 30,
    reload_seconds: Annotated[
        float,
        typer.Option(
            min=0, help="Between two looks whether a model's file changed; 0 never looks.", rich_help_panel=HOW
        ),
    ] = 1.0,
) -> None:
    """Answer requests for detections over HTTP, and show a page to try models on at /.

    POST /detect takes pictures; GET /models, /health, /ready and /metrics tell of the server, /docs of all that it
    takes. A model file that changes is loaded beside the former one and takes its place; no request is lost. SIGTERM
    and Ctrl-C end the server when what it took is answered. Each request is a line of json on the
    standard error stream.

    Examples:

    tood serve runs/first/best.safetensors

    tood serve small=runs/a big=runs/b --host 0.0.0.0 --keys keys.txt

    curl --data-binary @photo.jpg -H 'Content-Type: image/jpeg' localhost:8000/detect
    """
    from tood.errors import ToodError
    from tood.inference import Detector
    from tood.machine import limit_threads, usable_cores

    try:
        from tood.serving import (
            BatchConfig,
            JsonLog,
            Limits,
            ServeConfig,
            Service,
            listen,
            model_sources,
            read_keys,
        )
        from tood.serving import serve as run
    except ModuleNotFoundError as error:
        raise ToodError(f"serving needs {error.name}, which is not installed: pip install 'tood[serve]'") from error

    cores = usable_cores()
    lanes = lanes or max(min(cores, _FEW_CORES), cores // 4)
    limit_threads(max(1, cores // lanes))
    config = ServeConfig(
        Limits(
            body_bytes=round(max_megabytes * 2**20),
            pixels=round(max_megapixels * 1e6),
            pictures=min(max_pictures, queue),
            seconds=max_seconds,
            queue=queue,
            header_seconds=min(10.0, max_seconds),
        ),
        BatchConfig(lanes, batch_size, batch_wait / 1000),
        tuple(allow_url or ()),
        () if keys is None else read_keys(keys),
        reload_seconds,
    )
    log = JsonLog()

    def load(model: str) -> Detector:
        return Detector(model, device, threshold, precision=precision)

    listening = listen(host, port)
    with listening:
        service = Service(model_sources(models), load, config, log)
        told_host, told_port = listening.getsockname()[:2]
        address = f"http://{f'[{told_host}]' if ':' in told_host else told_host}:{told_port}"
        for name, model in service.models.items():
            detector = model.current.detector
            fields = {"model": name, "version": model.current.version, "device": str(detector.device)}
            log("info", "loaded", {**fields, "precision": detector.precision})
        if not told_host.startswith("127.") and told_host != "::1" and not config.keys:
            log("warning", "open", {"message": "other machines can ask this server without a key: see --keys"})
        log("info", "serving", {"address": address, "lanes": lanes, "threads": max(1, cores // lanes)})
        typer.echo(f"Serving {', '.join(service.models)} at {address}")
        run(service, listening)
        log("info", "stopped", {"message": "all that was taken is answered"})
