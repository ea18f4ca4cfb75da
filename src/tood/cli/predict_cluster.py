"""`tood predict --engine ray`: the same on the machines of a Ray cluster, from buckets and parquet into parquet."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import typer

from tood.choices import PredictionPrecision
from tood.cli.resuming import say_resumed
from tood.progress_bar import progress_bar

if TYPE_CHECKING:
    from tood.cli.predict import PredictOptions
    from tood.clusters import Plan, ShardReport, ShippedModel
    from tood.clusters.ray_engine import Workers
    from tood.stop import StopSignal

# Files of results that are looked at at a time: buckets answer slowly, but many at once.
_READERS = 16


def predict_on_cluster(
    asked: PredictOptions, out: str, *, workers: int | None, threads: int | None, at_once: int
) -> None:
    """Runs it, tells what became of it, and ends the command where it was stopped.

    Args:
        asked: what is to be found where.
        out: folder to write to, of any file system.
        workers, threads: processes, and cores of each; None for all that there is room for.
        at_once: pictures in a parquet file.
    """
    from tood.clusters import Place, ShippedModel, WorkerConfig, find_shards, read_plan, write_plan
    from tood.clusters.plan import already_there
    from tood.clusters.ray_engine import connect, disconnect, require_ray, run
    from tood.inference import parse_device
    from tood.precision import choose_precision
    from tood.stop import StopSignal

    place = Place.of(out)
    # What is wrong is said before a cluster is started, which takes a quarter of a minute.
    if asked.device is not None:
        parse_device(asked.device)
    plan = read_plan(place)
    if plan is not None and not asked.resume:
        raise already_there(place)
    model = ShippedModel.of(asked.model)
    require_ray()
    settings = _settings(asked, model, at_once)
    if plan is None:
        shards = find_shards(place, asked.sources, at_once)
        done = set[int]()
    else:
        _require_same(plan, settings | _of_workers(asked, threads))
        place.remove_unfinished()
        done = plan.done()
        if len(done) == len(plan.shards):
            _say_resumed(plan, done, asked.resume)
            _tell(plan, plan.pictures, _failures(plan, done))
            return
    cluster = connect(workers, threads, asked.device, model)
    try:
        # Decided here for all: machines with other instructions would give other digits.
        precision = choose_precision(asked.precision, parse_device(cluster.device))
        chosen: PredictionPrecision = "bf16" if precision.name == "bf16" else "fp32"
        if model.is_exported:
            chosen = asked.precision
        config = WorkerConfig(asked.threshold, asked.batch_size, cluster.device, chosen, asked.exif, cluster.cores)
        settings |= {"device": config.device, "precision": config.precision, "threads": config.threads}
        if plan is None:
            plan = write_plan(place, asked.sources, settings, shards)
        else:
            _require_same(plan, settings)
        to_do = [number for number in range(len(plan.shards)) if number not in done]
        _say_resumed(plan, done, asked.resume)
        _say_start(plan, cluster, "as exported" if model.is_exported else str(precision))
        reports = run(plan, to_do, model, config, cluster) if to_do else iter(())
        with StopSignal() as stop:
            _follow(plan, reports, done, stop)
    finally:
        disconnect()


def _settings(asked: PredictOptions, model: ShippedModel, at_once: int) -> dict[str, Any]:
    """What decides the results, as far as it is known without a cluster."""
    return {
        "model": model.digest,
        "threshold": asked.threshold,
        "batch size": asked.batch_size,
        "exif": asked.exif,
        "sources": list(asked.sources),
        "pictures a file": at_once,
    }


def _of_workers(asked: PredictOptions, threads: int | None) -> dict[str, Any]:
    """What else is asked for; what is left open is the cluster's choice."""
    device = None if asked.device is None else "cuda" if asked.device.startswith("cuda") else asked.device
    precision = None if asked.precision == "auto" else asked.precision
    told = {"device": device, "precision": precision, "threads": threads}
    return {key: value for key, value in told.items() if value is not None}


def _require_same(plan: Plan, settings: dict[str, Any]) -> None:
    from tood.claimed_folder import require_same_settings

    require_same_settings(plan.out.uri, plan.settings, settings, otherwise="name another --out")


def _failures(plan: Plan, done: set[int]) -> int:
    """Pictures of the files that are there already which could not be looked at."""
    from tood.clusters import failures_in

    with ThreadPoolExecutor(_READERS) as pool:
        return sum(pool.map(lambda number: failures_in(plan.part(number)), sorted(done)))


def _say_resumed(plan: Plan, done: set[int], resume: bool) -> None:
    before = sum(plan.shards[number].count for number in done)
    say_resumed(before, "pictures", resume=resume, found_unfinished=False)


def _say_start(plan: Plan, workers: Workers, precision: str) -> None:
    many = f"{workers.count} {'worker' if workers.count == 1 else 'workers'}"
    cores = f"{workers.cores} {'core' if workers.cores == 1 else 'cores'}"
    typer.echo(f"{plan.pictures:,} pictures, {many} of {cores}, {workers.device}, {precision}", err=True)


def _follow(plan: Plan, reports: Iterator[ShardReport], done: set[int], stop: StopSignal) -> None:
    """Waits for all shards, shows how many are done, and tells the end."""
    written = sum(plan.shards[number].count for number in done)
    failures = _failures(plan, done)
    with progress_bar("pictures", plan.pictures) as move:
        move(written, None)
        # None is begun after the wish to stop.
        while not stop.number and (report := stop.next_of(reports)) is not None:
            written += report.pictures
            failures += report.failures
            move(written, None)
    _tell(plan, written, failures)
    if written < plan.pictures:
        typer.echo("tood: stopped; the same command with --resume does the rest", err=True)
        raise typer.Exit(128 + stop.number)


def _tell(plan: Plan, written: int, failures: int) -> None:
    """The end; that of a whole run in which pictures could not be read is an error, as of every prediction."""
    whole = written == plan.pictures
    typer.echo(
        f"{written:,} pictures done. Results: {plan.out.uri}"
        if whole
        else f"{written:,} pictures of {plan.pictures:,} done: {plan.out.uri}"
    )
    if failures:
        told = f"{failures:,} {'picture' if failures == 1 else 'pictures'} could not be read"
        typer.echo(f"tood: {told}: the column `error` says why, in their rows of {plan.out.uri}", err=True)
        if whole:
            raise typer.Exit(2)
