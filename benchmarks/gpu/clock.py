"""Seconds and bytes on a device; without anything of this package, so that peers are measured by the same."""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable

import torch

from benchmarks.timing import peak_growth

ROUNDS = 3


def wait_for(device: torch.device) -> None:
    """Until the device has done all it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def seconds_a_call(call: Callable[[], object], device: torch.device, seconds: float = 1.0, warm_up: int = 3) -> float:
    """Seconds of one of many calls in a row, the device waited for only behind the last: the median of three rounds.

    Args:
        call: gives the device work.
        device: that is waited for.
        seconds: that all rounds take together, about.
        warm_up: calls before, which are not counted.
    """
    for _ in range(warm_up):
        call()
    count = max(1, min(1000, int(seconds / ROUNDS / max(_seconds_of(call, 1, device), 1e-6))))
    return statistics.median(_seconds_of(call, count, device) for _ in range(ROUNDS)) / count


def _seconds_of(call: Callable[[], object], count: int, device: torch.device) -> float:
    wait_for(device)
    began = time.perf_counter()
    for _ in range(count):
        call()
    wait_for(device)
    return time.perf_counter() - began


def peak_mib(call: Callable[[], object], device: torch.device) -> float:
    """MiB by which one call raises the memory that PyTorch holds tensors in, at its highest."""
    if device.type != "cuda":
        return peak_growth(call)
    gc.collect()
    wait_for(device)
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    call()
    wait_for(device)
    return (torch.cuda.max_memory_allocated(device) - before) / 2**20


def bf16_peak(device: torch.device, side: int = 8192, seconds: float = 0.4) -> float:
    """FLOP/s of a large product of bf16 matrices of random numbers: what this GPU gives, whatever was printed of it."""
    a, b = (torch.randn(side, side, device=device).to(torch.bfloat16) for _ in range(2))
    return 2 * side**3 / seconds_a_call(lambda: a @ b, device, seconds)
