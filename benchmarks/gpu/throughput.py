"""How many images a second are trained on, and what share of the GPU's arithmetic that uses."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace

from benchmarks.gpu.bench import Bench
from benchmarks.gpu.clock import bf16_peak, peak_mib, seconds_a_call
from benchmarks.gpu.machine import bf16_data_sheet
from benchmarks.gpu.work import (
    MAIN,
    SMALL,
    Pipelined,
    batch_of,
    captured,
    example_runs,
    learning,
    named_run,
    training_flops,
)
from benchmarks.rows_network import TrainingStep
from tood.input import normalise
from tood.models.measure import measure
from tood.training import RunConfig

OBJECTS = 10
# A part's last figures are left out rather than half of one taken.
LEAST_SECONDS, COMPILER_SECONDS = 6.0, 45.0
# What `tood train` does; the same in other layouts and precisions; and a step of forward, losses, backward and the
# optimiser alone, then all that it gives the device as one graph; the same with the network compiled first.
TRAINS, CONTIGUOUS, FP32, FP16 = "tood train, bf16", "contiguous", "fp32 (TF32 convolutions)", "fp16"
ALONE, COMPILED = "step alone", "compiled"
GRAPH = {ALONE: "CUDA graph", COMPILED: "compiled, CUDA graph"}


def main_model(bench: Bench) -> None:
    """TOOD R50 at 800 x 1333."""
    batches = bench.pick((16, 8, 2), (1,))
    config = named_run(bench.pick(MAIN, "tood_tiny"), bench.device, bench.pick(None, (64, 96)))
    peak = _told_peak(bench)
    for count in batches:
        _variants(bench, config, count, (TRAINS,), peak)
    _variants(bench, config, batches[0], bench.pick((CONTIGUOUS, FP16, FP32, ALONE), (CONTIGUOUS, ALONE)), peak)
    _variants(bench, config, batches[-1], bench.pick((ALONE,), ()), peak)


def small(bench: Bench) -> None:
    """The small named models at their own size."""
    peak = _told_peak(bench)
    names, size = bench.pick(SMALL, SMALL[:1]), bench.pick(None, (64, 64))
    for name in names:
        _variants(bench, named_run(name, bench.device, size), bench.pick(64, 2), (TRAINS,), peak)
    counts = {ALONE: (64, 16), TRAINS: (16, 128, 32), CONTIGUOUS: (64,), FP32: (64,)}
    for variant, of_variant in counts.items():
        for count in bench.pick(of_variant, (2,)):
            for name in names[:2]:
                _variants(bench, named_run(name, bench.device, size), count, (variant,), peak)


def compiled(bench: Bench) -> None:
    """`torch.compile` of the network, which takes long to begin."""
    peak = _told_peak(bench)
    first, *others = ((name, 64) for name in SMALL)
    runs = [(named_run(name, bench.device), count) for name, count in (first, (MAIN, 8), *others)]
    if bench.dry:
        runs = [(next(iter(example_runs(bench.device).values())), 1)]
    for run, count in runs:
        _variants(bench, run, count, (ALONE, COMPILED), peak)


def _told_peak(bench: Bench) -> float:
    """FLOP/s of a bf16 product here and now."""
    return bf16_peak(bench.device, bench.pick(8192, 64), bench.pick(0.4, 0.0))


def _variants(bench: Bench, config: RunConfig, count: int, variants: Iterable[str], peak: float) -> None:
    for variant in variants:
        row = f"{config.name}, {count} image{'s' if count > 1 else ''}"
        if bench.in_time(f"{row}, {variant}", COMPILER_SECONDS if variant == COMPILED else LEAST_SECONDS):
            with bench.trying(f"{row}, {variant}"):
                _variant(bench, config, count, variant, row, peak)


def _variant(bench: Bench, config: RunConfig, count: int, variant: str, row: str, peak: float) -> None:
    batch = batch_of(config.model.input, (OBJECTS,) * count, config.model.classes, bench.device)
    precision = {FP32: "fp32", FP16: "fp16"}.get(variant, "bf16")
    config = replace(config, precision=precision, batch_size=count, channels_last=variant != CONTIGUOUS)
    if variant not in GRAPH:
        with learning(config) as learner:
            _measured(bench, config, Pipelined(learner, batch), count, variant, row, peak)
        return
    step = TrainingStep(config, bench.device)
    for group in step.optimizer.param_groups:
        if "capturable" in group:  # its count of steps is then the device's
            group["capturable"] = True

    def alone() -> None:
        step(normalise(batch.images, batch.sizes, config.model.input), batch.targets, True)

    if variant == COMPILED:
        # A dry run only traces, and a part alone: all of it would take most of the dry run's time.
        bench.pick(step.model, step.model.backbone).compile(backend=bench.pick("inductor", "eager"), dynamic=False)
        seconds = seconds_a_call(alone, bench.device, 0.0, 0)
        bench.cell("seconds until the first step is done", row, variant, seconds, "s")
    _measured(bench, config, alone, count, variant, row, peak)
    if bench.on_gpu:
        _measured(bench, config, captured(alone), count, GRAPH[variant], row, peak)


def _measured(
    bench: Bench, config: RunConfig, call: Callable[[], object], count: int, variant: str, row: str, peak: float
) -> None:
    seconds = seconds_a_call(call, bench.device, bench.pick(1.0, 0.0), bench.pick(3, 0))
    bench.cell("images a second", row, variant, count / seconds, "")
    rate = training_flops(config.model) * count / seconds
    bench.cell("share of the bf16 product measured here", row, variant, 100 * rate / peak, "%")
    told = bf16_data_sheet(bench.device)
    if told is not None:
        bench.cell("share of the data sheet's bf16 peak", row, variant, 100 * rate / told / 1e12, "%")
    if variant == TRAINS:
        cost = measure(config.model)
        table = "operations of an image's forward pass and of its whole step"
        bench.cell(table, config.name, "forward", 2 * cost.multiply_adds / 1e9, "GFLOP")
        bench.cell(table, config.name, "step", training_flops(config.model) / 1e9, "GFLOP")
        bench.cell("memory of a step beside weights and momenta", row, variant, peak_mib(call, bench.device), "MiB")
