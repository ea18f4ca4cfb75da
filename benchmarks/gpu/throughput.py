"""How many images a second are trained on, and what share of the GPU's arithmetic that uses."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterable
from dataclasses import replace

from benchmarks.gpu.bench import Bench
from benchmarks.gpu.clock import bf16_peak, peak_mib, seconds_a_call
from benchmarks.gpu.machine import bf16_data_sheet
from benchmarks.gpu.work import (
    MAIN,
    Pipelined,
    batch_of,
    captured,
    learning,
    named_run,
    small_models,
    training_flops,
)
from benchmarks.rows_network import TrainingStep
from tood.input import normalise
from tood.models.measure import measure
from tood.training import RunConfig

OBJECTS = 10
# A part's last figures are left out rather than half of one taken.
LEAST_SECONDS = 8.0
# What `tood train` does; the same in other precisions and layouts; and a step of forward, losses, backward and the
# optimiser alone, launched one by one, as one graph, or compiled first.
TRAINS, CONTIGUOUS, FP32, FP16 = "tood train, bf16", "contiguous", "fp32 (TF32 convolutions)", "fp16"
ALONE, GRAPH, COMPILED, COMPILED_GRAPH = "step alone", "CUDA graph", "compiled", "compiled, CUDA graph"


def main_model(bench: Bench) -> None:
    """TOOD R50 at 800 x 1333."""
    batches = bench.pick((16, 8, 2), (1,))
    config = named_run(MAIN, bench.device, bench.pick(None, (64, 96)))
    peak = _told_peak(bench)
    for count in batches:
        _variants(bench, config, count, (TRAINS,), peak)
    _variants(bench, config, batches[0], bench.pick((ALONE, GRAPH, CONTIGUOUS, FP16, FP32), (ALONE, CONTIGUOUS)), peak)
    _variants(bench, config, batches[-1], (ALONE, GRAPH), peak)


def small(bench: Bench) -> None:
    """The small named models at their own size."""
    peak = _told_peak(bench)
    configs = [named_run(card.name, bench.device, bench.pick(None, (64, 64))) for card in small_models()]
    for variants in ((TRAINS, GRAPH), (ALONE, CONTIGUOUS), (FP32,)):
        for count in bench.pick((64, 16, 128, 32), (2,)):
            for config in configs:
                _variants(bench, config, count, variants, peak)


def compiled(bench: Bench) -> None:
    """`torch.compile` of the network, which takes long to begin."""
    peak = _told_peak(bench)
    size = bench.pick(None, (64, 64))
    cards = [card.name for card in small_models()][: bench.pick(None, 1)]
    for name, count in (*((card, bench.pick(64, 1)) for card in cards), *bench.pick(((MAIN, 8),), ())):
        _variants(bench, named_run(name, bench.device, size), count, (ALONE, COMPILED, COMPILED_GRAPH), peak)


def _told_peak(bench: Bench) -> float:
    """FLOP/s of a bf16 product here and now."""
    return bf16_peak(bench.device, bench.pick(8192, 64), bench.pick(0.4, 0.0))


def _variants(bench: Bench, config: RunConfig, count: int, variants: Iterable[str], peak: float) -> None:
    for variant in variants:
        if variant in (GRAPH, COMPILED_GRAPH) and not bench.on_gpu:
            continue
        row = f"{config.name}, {count} image{'s' if count > 1 else ''}"
        if bench.left < LEAST_SECONDS and not bench.dry:
            bench.note(f"{row}, {variant}: left out, the part's time was up")
            continue
        with bench.trying(f"{row}, {variant}"):
            _variant(bench, config, count, variant, row, peak)
        gc.collect()


def _variant(bench: Bench, config: RunConfig, count: int, variant: str, row: str, peak: float) -> None:
    batch = batch_of(config.model.input, (OBJECTS,) * count, config.model.classes, bench.device)
    precision = {FP32: "fp32", FP16: "fp16"}.get(variant, "bf16")
    config = replace(config, precision=precision, batch_size=count, channels_last=variant != CONTIGUOUS)
    if variant in (TRAINS, CONTIGUOUS, FP32, FP16):
        with learning(config) as learner:
            _measured(bench, config, Pipelined(learner, batch), count, variant, row, peak)
        return
    step = TrainingStep(config, bench.device)
    for group in step.optimizer.param_groups:
        if "capturable" in group:  # its count of steps is then the device's
            group["capturable"] = True
    if variant in (COMPILED, COMPILED_GRAPH):
        # A dry run only traces: a CPU's compiler would take most of its time.
        step.model.compile(backend=bench.pick("inductor", "eager"), dynamic=False)

    def alone() -> None:
        step(normalise(batch.images, batch.sizes, config.model.input), batch.targets, True)

    alone()  # the compiler's time, and the optimiser's memory
    call: Callable[[], object] = captured(alone) if variant in (GRAPH, COMPILED_GRAPH) else alone
    _measured(bench, config, call, count, variant, row, peak)


def _measured(
    bench: Bench, config: RunConfig, call: Callable[[], object], count: int, variant: str, row: str, peak: float
) -> None:
    seconds = seconds_a_call(call, bench.device, bench.pick(1.2, 0.0), bench.pick(3, 0))
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
