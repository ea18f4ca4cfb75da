"""The processor, the cores that this process may use, and how threads wait for each other where others compute too."""

from __future__ import annotations

import math
import os
import platform
import statistics
import time
from collections.abc import MutableMapping
from pathlib import Path

# How often a waiting thread of PyTorch's OpenMP (GNU's, on Linux) looks before it sleeps, on a machine in use.
SPINS = 1000
# Looks at who is at work now, and seconds between two of them: one alone may meet a passing moment.
_LOOKS, _BETWEEN = 3, 0.003
# Load average of a minute, in processes a core, from which on a machine is called busy.
_BUSY = 1.0


def settle_threads(environment: MutableMapping[str, str] = os.environ, load: Path = Path("/proc/loadavg")) -> None:
    """Says by environment variables how PyTorch's threads are to behave; what a person has set stays.

    OpenMP reads them once, when PyTorch is loaded: later calls change nothing.

    By default a thread spins for some 10 milliseconds at the end of each operation until the others are there. Where
    another process has a core, the others are not there, and the spinning takes from them the time they wait for: two
    compilers then slow a prediction tenfold. On a machine that nobody else uses sleeping costs a fifth of the time, so
    that threads go on spinning there. And a container's limit on CPU time is not seen at all: threads for all of the
    machine's cores then share, by turns, what two may have.

    Args:
        environment: of this process.
        load: the file in which Linux tells how many threads are computing.
    """
    limited = usable_cores() < _visible_cores()
    chosen = {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT"} & environment.keys()
    if not chosen and (limited or usable_cores() + _others_at_work(load) > (os.cpu_count() or 1)):
        environment["GOMP_SPINCOUNT"] = str(SPINS)
    if not {"OMP_NUM_THREADS", "MKL_NUM_THREADS"} & environment.keys() and limited:
        environment["OMP_NUM_THREADS"] = str(usable_cores())


def limit_threads(count: int) -> None:
    """Computes with so many threads from now on, in this process."""
    import torch

    torch.set_num_threads(count)


def usable_cores(control_groups: Path = Path("/sys/fs/cgroup"), own_groups: Path = Path("/proc/self/cgroup")) -> int:
    """Cores that this process may use: those it is bound to, or fewer if its container has less time than they give.

    It does not ask which of them are idle: sums in other orders differ in their last digit, and a run that goes on
    elsewhere in time should end as it would have.

    Args:
        control_groups: where Linux shows the limits of containers.
        own_groups: the file that says which of them are this process's.
    """
    quota = _cpu_quota(control_groups, own_groups)
    return _visible_cores() if quota is None else max(1, min(_visible_cores(), math.ceil(quota)))


def processor_flags(cpuinfo: Path = Path("/proc/cpuinfo")) -> tuple[str, frozenset[str]]:
    """The CPU's name and its flags, as Linux tells them; empty where it is not asked."""
    try:
        text = cpuinfo.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return platform.processor() or platform.machine(), frozenset()
    fields: dict[str, str] = {}
    for line in text.splitlines():
        key, found, value = line.partition(":")
        if found:
            fields.setdefault(key.strip().lower(), value.strip())
    flags = fields.get("flags") or fields.get("features") or ""
    return fields.get("model name") or platform.machine(), frozenset(flags.split())


def busy_advice() -> str:
    """A sentence for the log where others are at work on this machine; empty where none are, or none can be seen."""
    cores = os.cpu_count() or 1
    if not hasattr(os, "getloadavg"):
        return ""
    try:
        load = os.getloadavg()[0]
    except OSError:
        return ""
    return busy_sentence(load, cores)


def busy_sentence(load: float, cores: int) -> str:
    """What to say of a load (processes that compute, mean of the last minute) on so many cores."""
    if load < _BUSY * cores:
        return ""
    return (
        f"this machine is busy: {load:.1f} processes at work on {cores} {'core' if cores == 1 else 'cores'} in the "
        "last minute, so this will take longer than alone; if they stay, --threads with the number of cores that are "
        "left is often faster"
    )


def _others_at_work(load: Path) -> int:
    """Threads of the whole machine that compute or wait for a core now, without the one that asks; 0 if unknown."""
    found = []
    for look in range(_LOOKS):
        if look:
            time.sleep(_BETWEEN)
        try:
            running, _, _ = load.read_text(encoding="ascii").split()[3].partition("/")
            found.append(int(running) - 1)
        except (OSError, ValueError, IndexError):
            return 0
    return max(int(statistics.median(found)), 0)


def _visible_cores() -> int:
    """That this process is bound to; a container's limit on time is not seen here."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _cpu_quota(control_groups: Path, own_groups: Path) -> float | None:
    """CPU seconds a second that the tightest control group around this process allows, None without a limit."""
    try:
        lines = own_groups.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return None
    limits = []
    for line in lines:
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if controllers and "cpu" not in controllers.split(","):
            continue
        # Version 2 has one tree; version 1 one for each set of controllers. Outermost groups limit inner ones.
        tree = control_groups / controllers
        within = [part for part in path.split("/") if part not in ("", "..")]
        folders = [tree.joinpath(*within[:depth]) for depth in range(len(within) + 1)]
        limits += [limit for folder in folders if (limit := _limit(folder)) is not None]
    return min(limits, default=None)


def _limit(folder: Path) -> float | None:
    """Of one control group, as either version of Linux's control groups writes it."""
    try:
        if (folder / "cpu.max").exists():
            quota, period = (folder / "cpu.max").read_text(encoding="ascii").split()
        else:
            quota = (folder / "cpu.cfs_quota_us").read_text(encoding="ascii").strip()
            period = (folder / "cpu.cfs_period_us").read_text(encoding="ascii").strip()
        return float(quota) / float(period) if quota != "max" and float(quota) > 0 else None
    except (OSError, ValueError, ZeroDivisionError):
        return None
