"""What all measurements share: the fastest of several calls, peak memory, and the lines that the runner reads."""

from __future__ import annotations

import json
import os
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path

# Set by the runner: fewer repetitions, for a look at whether everything works.
QUICK = os.environ.get("TOOD_BENCH_QUICK") == "1"
THREADS = int(os.environ.get("OMP_NUM_THREADS", "2"))


def emit(name: str, value: float, unit: str) -> None:
    """Prints one figure as a line of json."""
    print(json.dumps({"name": name, "value": value, "unit": unit}), flush=True)


def fastest(function: Callable[[], object], times: int = 5) -> float:
    """Seconds of the fastest of several calls, after one that is not counted."""
    function()
    seconds = []
    for _ in range(2 if QUICK else times):
        started = time.perf_counter()
        function()
        seconds.append(time.perf_counter() - started)
    return min(seconds)


def peak_growth(function: Callable[[], object]) -> float:
    """MiB by which one call raises this process's memory at its highest."""
    try:
        Path("/proc/self/clear_refs").write_text("5")  # the peak is counted from here
    except OSError:
        before = peak_memory()
    else:
        before = resident_memory()
    function()
    return max(0.0, peak_memory() - before)


def peak_memory() -> float:
    """MiB of memory that this process held at its highest."""
    if Path("/proc/self/status").exists():
        return _linux_memory("VmHWM")
    # Linux counts in KiB, macOS in bytes.
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)


def resident_memory() -> float:
    """MiB of memory that this process holds now (Linux)."""
    return _linux_memory("VmRSS")


def _linux_memory(field: str) -> float:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1]) / 1024
    return 0.0
