"""Whether the host waits for the GPU within a step: what PyTorch says of itself, and what the profiler saw."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace

import torch
from torch.profiler import ProfilerActivity, profile, record_function

from benchmarks.gpu.bench import Bench
from benchmarks.gpu.work import (
    ALIGNED,
    MAIN,
    SMALL,
    WARM_UP,
    Pipelined,
    batch_of,
    example_runs,
    learning,
    named_run,
)
from tood.training import RunConfig

# Calls of the CUDA runtime and driver that come back when the device has got somewhere.
WAITS = frozenset(
    f"{prefix}{call}"
    for prefix, calls in (
        ("cuda", ("StreamSynchronize", "DeviceSynchronize", "EventSynchronize", "Memcpy", "Memcpy2D", "Memset")),
        ("cu", ("StreamSynchronize", "CtxSynchronize", "EventSynchronize")),
    )
    for call in calls
)
LAUNCHES = ("cudaLaunchKernel", "cudaLaunchKernelExC", "cuLaunchKernel", "cuLaunchKernelEx", "cudaGraphLaunch")
TO_HOST, TO_DEVICE = "Memcpy DtoH", "Memcpy HtoD"
LAUNCH = "a step is launched"
LEAST_SECONDS = 8.0


def run(bench: Bench) -> None:
    """Every family's examples and named models, in both phases."""
    # fp16 has all of bf16's operations, and a scaler.
    runs = [(*run, bench.pick("fp16", "fp32")) for run in example_runs(bench.device, bench.pick(None, 1)).items()]
    if bench.dry:
        runs = runs[:1]  # it tries each family's step once (`families.py`)
    else:
        runs += [(name, named_run(name, bench.device, (320, 416)), "bf16") for name in (MAIN, *SMALL)]
    for name, config, precision in runs:
        own = f"{name} in {precision}"
        if bench.in_time(own, LEAST_SECONDS):
            with bench.trying(own):
                _steps(bench, own, replace(config, precision=precision, clip_gradient=10.0))


def _steps(bench: Bench, name: str, config: RunConfig) -> None:
    with learning(config) as learner:
        counts = bench.pick((40, 0, 7, 3), (2, 0))
        batch = batch_of(config.model.input, counts, config.model.classes, bench.device, crowds=2)
        for phase, progress in (("aligned", ALIGNED), ("warm-up", WARM_UP)):
            step = Pipelined(learner, batch, progress)
            for _ in range(bench.pick(3, 1)):
                step()
            with _no_waiting() if bench.on_gpu else nullcontext():
                step.launch()
            _profiled(bench, f"{name}, {phase}", step)


@contextmanager
def _no_waiting() -> Iterator[None]:
    """PyTorch raises an error where it would wait for the device by itself."""
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


def _profiled(bench: Bench, name: str, step: Pipelined) -> None:
    steps = bench.pick(2, 1)
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if bench.on_gpu else [])]
    if bench.on_gpu:
        torch.cuda.synchronize()
    with profile(activities=activities) as seen:
        for _ in range(steps):
            with record_function(LAUNCH):
                launched = step.launch()
            if step.before is not None:
                step.before.losses()
            step.before = launched
        if bench.on_gpu:
            torch.cuda.synchronize()
    events = list(seen.events() or ())
    on_host = [event for event in events if event.device_type == torch.autograd.DeviceType.CPU]
    launches = [event.time_range for event in on_host if event.name == LAUNCH]
    if not bench.on_gpu:
        bench.check(f"{name}: the profiler sees every step", len(launches) == steps)
        return
    if not any(event.name.startswith(LAUNCHES) for event in on_host):
        bench.note(f"{name}: the profiler sees no call of CUDA here; PyTorch itself says that it waits for nothing")
        return
    waits = sorted(
        {
            event.name
            for event in on_host
            if event.name in WAITS and any(r.start <= event.time_range.start <= r.end for r in launches)
        }
    )
    bench.check(f"{name}: nothing waits", not waits, ", ".join(waits))
    copies = [event.name for event in events if event.name.startswith((TO_HOST, TO_DEVICE))]
    to_host = sum(copy.startswith(TO_HOST) for copy in copies)
    told = f"{to_host} to the host, {len(copies) - to_host} to the device in {steps} steps"
    bench.check(f"{name}: copies of the logged losses alone", to_host <= steps and to_host == len(copies), told)
