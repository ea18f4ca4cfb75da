"""Whether batches arrive as fast as the GPU trains on them: the loader alone, the step alone, both together."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import islice

from accelerate.data_loader import prepare_data_loader

from benchmarks.gpu.bench import Bench
from benchmarks.gpu.clock import seconds_a_call, wait_for
from benchmarks.gpu.work import ALIGNED, MAIN, Pipelined, learning, named_run
from benchmarks.rows_feed import photographs
from tood.data import Batch, BatchPlan, DataConfig, DetectionDataset, train_loader
from tood.data.loading import default_workers
from tood.training import RunConfig

# Of the step's own speed, so much must be left with the loader's batches.
KEEPS_UP = 0.9


def run(bench: Bench) -> None:
    """Photographs of 1280 x 960, not cached, varied as the models' recipes say."""
    made = photographs(bench.folder)
    times = bench.pick(200, 1)
    many = [replace(image, id=number) for number, image in enumerate(list(made.images) * times)]
    dataset = replace(made, images=tuple(many))
    workers = bench.pick(default_workers(on_gpu=bench.on_gpu), 1)
    bench.note(f"{workers} loading processes.")
    for name, count in bench.pick(((MAIN, 16), ("tood_tiny", 64)), (("tood_tiny", 2),)):
        with bench.trying(name):
            config = replace(named_run(name, bench.device, bench.pick(None, (64, 64))), batch_size=count)
            _model(bench, config, dataset, DataConfig(workers=workers, cache=False), count)


def _model(bench: Bench, config: RunConfig, dataset: DetectionDataset, data: DataConfig, count: int) -> None:
    loader = train_loader(dataset, data, config.augment, config.model.input, BatchPlan(count), on_gpu=bench.on_gpu)
    with learning(config) as learner:
        # As the training loop puts batches on the device.
        prepared = prepare_data_loader(loader, bench.device, 1, 0, put_on_device=True, non_blocking=True)
        # What was loaded ahead says nothing of how fast more comes.
        ahead = loader.num_workers * (loader.prefetch_factor or 0)
        warm_up, steps = bench.pick((ahead + 4, 24), (1, 2))
        table, row = "images a second", f"{config.name}, {count} images"
        batches = _endless(prepared)
        first = next(batches)
        alone = count / seconds_a_call(Pipelined(learner, first), bench.device, *bench.pick((1.5, 3), (0.0, 0)))
        bench.cell(table, row, "step alone", alone, "")
        bench.cell(table, row, "loader alone", _rate(bench, batches, warm_up, steps, count, None), "")
        fed = _rate(bench, batches, warm_up, steps, count, Pipelined(learner, first))
        bench.cell(table, row, "both", fed, "")
    if bench.on_gpu:
        bench.check(f"{config.name}: loading keeps up", fed >= KEEPS_UP * alone, f"{fed / alone:.0%} of the step alone")


def _rate(
    bench: Bench, batches: Iterator[Batch], warm_up: int, steps: int, count: int, step: Pipelined | None
) -> float:
    """Images a second, those that are loaded or under way at the beginning left out."""
    for number, batch in enumerate(islice(batches, warm_up + steps)):
        if number == warm_up:
            wait_for(bench.device)
            began = time.perf_counter()
        if step is not None:
            step.batch, step.progress = batch, ALIGNED
            step()
    wait_for(bench.device)
    return steps * count / (time.perf_counter() - began)


def _endless(loader: Iterable[Batch]) -> Iterator[Batch]:
    while True:
        yield from loader
