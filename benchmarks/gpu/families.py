"""Every family's examples: steps, assignments and predictions on the device beside those on the CPU."""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from torch import Tensor
from torch.utils._pytree import tree_map_only

from benchmarks.gpu.bench import Bench
from benchmarks.gpu.golden import distance
from benchmarks.gpu.work import ALIGNED, RATE, WARM_UP, batch_of, example_runs, learning, tf32
from tood.data import Batch
from tood.input import normalise
from tood.models import AnyModelConfig, build_model, for_inference
from tood.training import RunConfig

STEPS, LEAST_SECONDS = 3, 6.0
FULL_RATE = 0.01
# Parts by which losses may differ from those of the CPU in fp32; and the rate, under which fp16 may drop steps, as its
# scaler does at first, and still come to the same losses.
NEAR = {"fp32": (5e-3, FULL_RATE), "bf16": (5e-2, RATE), "fp16": (2e-2, RATE)}


def run(bench: Bench) -> None:
    """All families that there are."""
    for name, config in example_runs(bench.device, bench.pick(None, 1)).items():
        if not bench.in_time(name, LEAST_SECONDS):
            continue
        with bench.trying(name), tf32(False):
            _steps(bench, name, config)
            _assignments(bench, name, config)
        with bench.trying(f"{name}: predictions"), tf32(False):
            _predictions(bench, name, config.model)


def _batch(model: AnyModelConfig, device: torch.device) -> Batch:
    return batch_of(model.input, (5, 0, 2), model.classes, device, crowds=1)


def _steps(bench: Bench, name: str, run: RunConfig) -> None:
    on_cpu = {rate: _losses(replace(run, device="cpu"), torch.device("cpu"), rate) for rate in (FULL_RATE, RATE)}
    for precision in ("fp32", *bench.pick(("bf16", "fp16"), ("bf16",))):
        limit, rate = NEAR[precision]
        wanted = on_cpu[rate]
        found = _losses(replace(run, precision=precision), bench.device, rate)
        worst = max(abs(ours - theirs) / theirs for ours, theirs in zip(found, wanted, strict=True))
        bench.cell("loss after three steps", name, precision, found[-1], "")
        near = all(map(math.isfinite, found)) and worst <= limit
        bench.check(f"{name}: losses in {precision} as on the CPU", near, f"{worst:.1e} apart")


def _losses(run: RunConfig, device: torch.device, rate: float) -> list[float]:
    """The sum of the losses at each of some steps, in both phases of a criterion that has two."""
    with learning(run) as learner:
        batch = _batch(run.model, device)
        return [
            sum(learner.step([batch], number, rate, phase).values())
            for number, phase in enumerate((ALIGNED, WARM_UP, ALIGNED)[:STEPS], start=1)
        ]


def _assignments(bench: Bench, name: str, config: RunConfig) -> None:
    """The same predictions given to a criterion on both."""
    torch.manual_seed(0)
    network, batch = build_model(config.model).eval(), _batch(config.model, torch.device("cpu"))
    with torch.no_grad():
        predictions = network(normalise(batch.images, batch.sizes, config.model.input))
        found = []
        for device in (torch.device("cpu"), bench.device):
            there = tree_map_only(Tensor, lambda tensor, device=device: tensor.to(device), predictions)
            targets = batch.to(device).targets
            found.append(config.criterion.build()(there, targets).assignment.gt_index.cpu())
    differ = int((found[0] != found[1]).sum())
    # Rounding decides between priors that are equally good, of which fresh weights have many.
    bench.check(f"{name}: assignment as on the CPU", differ <= 0.005 * found[0].numel(), f"{differ} priors differ")


def _predictions(bench: Bench, name: str, model: AnyModelConfig) -> None:
    """A network on both, and the copy of it that only predicts."""
    torch.manual_seed(0)
    network, batch = build_model(model).eval(), _batch(model, torch.device("cpu"))
    with torch.inference_mode():
        wanted = network(normalise(batch.images, batch.sizes, model.input))
    # Outside of inference mode, whose tensors no module takes as its weights.
    network, there = network.to(bench.device), batch.to(bench.device)
    for dtype, limit in ((torch.float32, 1e-4), (torch.bfloat16, 5e-2)):
        copied = for_inference(network, dtype)
        with torch.inference_mode():
            found = copied(normalise(there.images, there.sizes, model.input))
        pairs = (found.scores.float().cpu(), found.boxes.float().cpu()), (wanted.scores, wanted.boxes)
        error = max(distance([ours], [theirs]) for ours, theirs in zip(*pairs, strict=True))
        what = str(dtype).removeprefix("torch.")
        bench.check(f"{name}: predictions in {what} as on the CPU", error <= limit, f"{error:.1e} apart")
