"""What is written of deterministic runs and of mixed precision, tried on the device."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from benchmarks.gpu.bench import Bench
from benchmarks.gpu.work import ALIGNED, RATE, WARM_UP, batch_of, example_runs, learning, named_run
from tood.input import normalise
from tood.precision import choose_precision
from tood.training import RunConfig
from tood.training.guard import NotFiniteError

# For what comes after the deterministic runs.
LEAST_SECONDS = 20.0


def run(bench: Bench) -> None:
    """Each promise by itself."""
    examples = example_runs(bench.device, bench.pick(None, 1))
    first = next(iter(examples.values()))
    tiny = replace(first, precision="bf16") if bench.dry else named_run("tood_tiny", bench.device)
    if bench.on_gpu:
        has_bf16 = torch.cuda.is_bf16_supported(including_emulation=False)
        chosen = choose_precision("auto", bench.device, training=True).name
        bench.check("trains in bf16 by itself where the GPU has it", chosen == ("bf16" if has_bf16 else "fp32"), chosen)
        chosen = choose_precision("auto", bench.device).name
        bench.check("predicts in fp32 by itself", chosen == "fp32", chosen)
    # First, as a process of `tood train` does: PyTorch looks once, at its first product, at what cuBLAS is told to do.
    runs = {"tood_tiny in bf16": tiny, "tood_tiny in fp32": replace(tiny, precision="fp32")}
    # A dry run tries each family's step once (`families.py`).
    for name, config in bench.pick(runs | examples, runs).items():
        if bench.in_time(f"{name}, deterministic", LEAST_SECONDS):
            with bench.trying(f"{name}, deterministic"):
                _deterministic(bench, name, config)
    with bench.trying("outputs"):
        _outputs(bench, tiny)
    with bench.trying("a bad step"):
        _bad_step(bench, tiny)
    with bench.trying("learning"):
        _learning(bench, tiny)


def _outputs(bench: Bench, config: RunConfig) -> None:
    """Scores, boxes and losses are fp32 whatever convolutions compute in."""
    for precision in bench.pick(("bf16", "fp16"), ("bf16",)):
        with learning(replace(config, precision=precision)) as learner:
            batch = batch_of(config.model.input, (3, 1), config.model.classes, bench.device)
            found = learner.model(normalise(batch.images, batch.sizes, learner.input))
            losses = learner.losses(batch, 1, ALIGNED)
            kinds = {tensor.dtype for tensor in (found.scores, found.boxes, losses.total)}
            met = kinds == {torch.float32}
            bench.check(f"scores, boxes and losses are fp32 in {precision}", met, ", ".join(map(str, kinds)))


def _bad_step(bench: Bench, config: RunConfig) -> None:
    """A step whose numbers are not finite leaves weights, statistics and averages as they are, and is told."""
    for precision in bench.pick(("fp32", "bf16", "fp16"), ("fp32",)):
        with learning(replace(config, precision=precision)) as learner:
            batch = batch_of(config.model.input, (3, 1), config.model.classes, bench.device)
            learner.step([batch], 1, RATE, ALIGNED)
            with torch.no_grad():
                learner.plain.head.classifier.bias[0] = torch.nan
            before = _state(learner.state_dict()["model"])
            try:
                learner.launch([batch], 2, RATE, ALIGNED).losses()
                told = False
            except NotFiniteError:
                told = True
            same = _same(before, _state(learner.state_dict()["model"]))
            bench.check(f"a bad step in {precision} is told and changes nothing", told and same)


def _deterministic(bench: Bench, name: str, config: RunConfig) -> None:
    """The same run twice gives the same bits; without asking for it, it may not."""
    first, second = (_trained(bench, replace(config, deterministic=True)) for _ in range(2))
    bench.check(f"{name}: deterministic runs end in the same bits", _same(first, second))
    if bench.on_gpu and not _same(_trained(bench, config), _trained(bench, config)):
        bench.note(f"{name}: without `deterministic=true` two runs differ.")


def _trained(bench: Bench, config: RunConfig) -> dict[str, Tensor]:
    with learning(config) as learner:
        batches = [
            batch_of(config.model.input, (4, 0, 9), config.model.classes, bench.device, crowds=1, seed=seed)
            for seed in range(bench.pick(2, 1))
        ]
        for number in range(1, bench.pick(7, 3)):
            batch, progress = batches[number % len(batches)], WARM_UP if number % 3 == 0 else ALIGNED
            learner.step([batch], number, 0.001, progress)
        return _state(learner.averaged.state_dict())


def _learning(bench: Bench, config: RunConfig) -> None:
    """All precisions learn the same images as well."""
    steps, ends = bench.pick(60, 2), {}
    for precision in ("fp32", *bench.pick(("bf16", "fp16"), ("bf16",))):
        with learning(replace(config, precision=precision)) as learner:
            batch = batch_of(config.model.input, (4, 2, 3, 1), config.model.classes, bench.device)
            for number in range(1, steps + 1):
                losses = learner.step([batch], number, learner.peak_rate / 4, ALIGNED)
            ends[precision] = sum(losses.values())
            bench.cell(f"loss after {steps} steps on four images", "tood_tiny", precision, ends[precision], "")
    # On the way down rounding parts them by a fifth (on a CPU bf16 from fp32).
    worst = max(end / ends["fp32"] for end in ends.values())
    bench.check("every precision learns as fp32 does", worst <= 1.5, f"a loss of at most {worst:.2f} times fp32's")


def _state(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.detach().clone() for name, tensor in state.items()}


def _same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    """Bit for bit, numbers that are none included."""
    return all(torch.equal(one[name].nan_to_num(), other[name].nan_to_num()) for name in one)
