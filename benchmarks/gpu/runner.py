"""Runs parts, each in a process of its own that is ended when its time is over."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import signal
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from benchmarks.gpu.child import PRELOADED, Order, work
from benchmarks.gpu.parts import Part
from benchmarks.gpu.result import Result, load

# With less left no part is begun: so long it takes until it has found anything.
LEAST_SECONDS = 10.0
# Of parts that run side by side each has at least so many cores.
CORES_EACH = 3


@dataclass(frozen=True)
class Runner:
    """Where results go and how long it may take.

    Attributes:
        out: folder; `parts/NAME.json`, `logs/NAME.txt`.
        dry_run, golden, peers: see `Order`.
        deadline: as `time.time()` counts; no part is begun or goes on after it.
        again: whether parts that have results are done once more.
        patience: factor of all limits.
    """

    out: Path
    dry_run: bool
    golden: Path
    peers: Path
    deadline: float
    again: bool = False
    patience: float = 1.0

    def run(self, parts: Sequence[Part], cores: int = 1) -> list[Result]:
        """All parts, in this order, as many side by side as there are cores for."""
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(PRELOADED)
        together = max(1, min(len(parts), cores // CORES_EACH))
        threads = cores // together if together > 1 else None
        with ThreadPoolExecutor(together) as pool:
            return list(pool.map(lambda part: self._settled(part) or self._run(part, context, threads), parts))

    def path(self, part: Part) -> Path:
        """The file of a part's results."""
        return self.out / "parts" / f"{part.name}.json"

    def _settled(self, part: Part) -> Result | None:
        found = None if self.again else load(self.path(part))
        if found is None or not found.settled or found.dry_run != self.dry_run:
            return None
        _say(part, found, "as before")
        return found

    def _run(self, part: Part, context: multiprocessing.context.BaseContext, threads: int | None) -> Result:
        path, log = self.path(part), self.out / "logs" / f"{part.name}.txt"
        result = Result(part.name, self.dry_run)
        left = self.deadline - time.time()
        if left < LEAST_SECONDS:
            result.status, result.why = "not started", "the time was up: run it again to go on"
        else:
            log.parent.mkdir(parents=True, exist_ok=True)
            result.save(path)  # one that is killed together with us stands as running
            limit = min(part.seconds * self.patience, left)
            places = [str(place) for place in (self.golden, self.peers, path, log, self.out / "work" / part.name)]
            ended = self._process(Order(part.does, part.name, self.dry_run, *places, limit, threads), context)
            result = load(path) or result
            if result.status == "running":
                result.status, result.why = ("failed", ended) if ended else ("timed out", f"after {limit:.0f} s")
        result.save(path)
        _say(part, result, f"{result.seconds:.0f} s")
        return result

    def _process(self, order: Order, context: multiprocessing.context.BaseContext) -> str:
        """Waits for a part's process; how it ended, empty if it did not."""
        process = context.Process(target=work, args=(order,))  # type: ignore[attr-defined]
        process.start()
        try:
            process.join(order.limit)
            over = process.is_alive()
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)  # and all that it started
            process.kill()
            process.join()
            shutil.rmtree(order.folder, ignore_errors=True)
        return "" if over else f"its process ended with code {process.exitcode}, see {order.log}"


def _say(part: Part, result: Result, remark: str) -> None:
    missed = [check.name for check in result.checks if not check.met]
    told = [f"{part.name}: {result.status} ({remark})", *([result.why] if result.why else [])]
    told += [f"{len(result.checks) - len(missed)} of {len(result.checks)} checks met"] if result.checks else []
    told += [f"missed: {', '.join(missed)}"] if missed else []
    print("; ".join(told), file=sys.stderr, flush=True)
