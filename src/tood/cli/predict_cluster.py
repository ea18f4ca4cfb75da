"""`tood predict --engine ray`: the same on the machines of a Ray cluster, from buckets and parquet into parquet."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import typer

from tood.choices import PredictionPrecision
from tood.cli.resuming import say_resumed
from tood.progress_bar import progress_bar

if TYPE_CHECKING:
    from tood.cli.predict import PredictOptions
    from tood.clusters import Place, Plan, ShardReport, ShippedModel, WorkerConfig
    from tood.clusters.ray_engine import Workers
    from tood.stop import StopSignal


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
    from tood.clusters import Place, ShippedModel, WorkerConfig, read_plan
    from tood.clusters.plan import already_there
    from tood.clusters.ray_engine import connect, disconnect, run
    from tood.inference import parse_device
    from tood.precision import choose_precision
    from tood.stop import StopSignal

    place = Place.of(out)
    # What is wrong is said before a cluster is started.
    if asked.device is not None:
        parse_device(asked.device)
    plan = read_plan(place)
    if plan is not None and not asked.resume:
        raise already_there(place)
    model = ShippedModel.of(asked.model)
    cluster = connect(workers, threads, asked.device, model)
    try:
        # Decided here for all: machines with other instructions would give other digits.
        precision = choose_precision(asked.precision, parse_device(cluster.device))
        chosen: PredictionPrecision = "bf16" if precision.name == "bf16" else "fp32"
        if model.is_exported:
            chosen = asked.precision
        config = WorkerConfig(asked.threshold, asked.batch_size, cluster.device, chosen, asked.exif, cluster.cores)
        plan = _plan(asked, place, at_once, plan, model, config)
        done = plan.done()
        to_do = [number for number in range(len(plan.shards)) if number not in done]
        _say_start(plan, done, cluster, "as exported" if model.is_exported else str(precision), asked.resume)
        reports = run(plan, to_do, model, config, cluster) if to_do else iter(())
        with StopSignal() as stop:
            _follow(plan, reports, done, stop)
    finally:
        disconnect()


def _plan(
    asked: PredictOptions, out: Place, at_once: int, before: Plan | None, model: ShippedModel, config: WorkerConfig
) -> Plan:
    """The plan to go on with, or a new one."""
    from tood.claimed_folder import require_same_settings
    from tood.clusters import make_plan

    settings = {
        "model": model.digest,
        "threshold": config.threshold,
        "batch size": config.batch_size,
        "device": config.device,
        "precision": config.precision,
        "threads": config.threads,
        "exif": config.exif,
        "sources": list(asked.sources),
        "pictures a file": at_once,
    }
    if before is None or not asked.resume:
        return make_plan(out, asked.sources, settings, at_once)
    require_same_settings(before.out.uri, before.settings, settings, otherwise="name another --out")
    before.out.remove_unfinished()
    return before


def _say_start(plan: Plan, done: set[int], workers: Workers, precision: str, resume: bool) -> None:
    before = sum(plan.shards[number].count for number in done)
    say_resumed(before, "pictures", resume=resume, found_unfinished=False)
    many = f"{workers.count} {'worker' if workers.count == 1 else 'workers'}"
    cores = f"{workers.cores} {'core' if workers.cores == 1 else 'cores'}"
    typer.echo(f"{plan.pictures:,} pictures, {many} of {cores}, {workers.device}, {precision}", err=True)


def _follow(plan: Plan, reports: Iterator[ShardReport], done: set[int], stop: StopSignal) -> None:
    """Waits for all shards, shows how many are done, and tells the end."""
    written = sum(plan.shards[number].count for number in done)
    failures = detections = 0
    with progress_bar("pictures", plan.pictures) as move:
        move(written, None)
        # None is begun after the wish to stop.
        while not stop.number and (report := stop.next_of(reports)) is not None:
            written += report.pictures
            failures += report.failures
            detections += report.detections
            move(written, None)
    whole = written == plan.pictures
    typer.echo(
        f"{written:,} pictures done. Results: {plan.out.uri}"
        if whole
        else f"{written:,} pictures of {plan.pictures:,} done: {plan.out.uri}"
    )
    if failures:
        told = "picture of this run" if failures == 1 else "pictures of this run"
        typer.echo(f"{failures:,} {told} could not be read: the column `error` says why", err=True)
    if not whole:
        typer.echo("tood: stopped; the same command with --resume does the rest", err=True)
        raise typer.Exit(128 + stop.number)
