"""A part at work, in the process that is its own: its results, its log, its end."""

from __future__ import annotations

import json
import os
import shutil
import sys
import traceback
from dataclasses import asdict, dataclass
from importlib import import_module
from pathlib import Path

# What the server of these processes has imported before it splits: nothing that touches a GPU.
PRELOADED = ["torch._dynamo", "tood.training", "tood.evaluation", "benchmarks.gpu.work", "benchmarks.gpu.bench"]


@dataclass(frozen=True)
class Order:
    """A part to be done.

    Attributes:
        does: module and function.
        name: of the part.
        dry_run: on the CPU at tiny sizes.
        golden, peers: folders, see `Settings`.
        path: of its results.
        log: where all that it prints goes.
        folder: for files of its own, gone afterwards.
        limit: seconds that it may take.
        threads: of PyTorch on the CPU; None for as many as it takes by itself.
    """

    does: str
    name: str
    dry_run: bool
    golden: str
    peers: str
    path: str
    log: str
    folder: str
    limit: float
    threads: int | None = None


def work(order: Order) -> None:
    """Does a part and writes its file, in a process that was split off."""
    os.setsid()  # whoever ends it ends its own processes too
    stream = os.open(order.log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(stream, 1)
    os.dup2(stream, 2)
    if not order.dry_run and not _may_use_gpu():
        print("Something has touched the GPU before this process was split off: it begins anew.", flush=True)
        os.execv(sys.executable, [sys.executable, "-m", "benchmarks.gpu.child", json.dumps(asdict(order))])
    do(order)


def _may_use_gpu() -> bool:
    """Whether CUDA can be begun in this process; it cannot be where it was in the one that this is a copy of."""
    import torch

    try:
        torch.cuda.init()
    except RuntimeError as error:
        print(error, flush=True)
        return False
    return True


def do(order: Order) -> None:
    """Does a part and writes its file."""
    import torch

    from benchmarks.gpu.bench import Bench, Left, Settings
    from benchmarks.gpu.result import Result

    result, folder = Result(order.name, order.dry_run), Path(order.folder)
    settings = Settings(order.dry_run, Path(order.golden), Path(order.peers))
    bench = Bench(settings, result, Path(order.path), folder, order.limit)
    folder.mkdir(parents=True, exist_ok=True)
    if order.threads is not None:
        torch.set_num_threads(order.threads)
    try:
        module, _, function = order.does.partition(":")
        getattr(import_module(module), function)(bench)
        result.status = "done"
    except Left as reason:
        result.status, result.why = "skipped", str(reason)
    except BaseException as error:
        traceback.print_exc()
        told = str(error).strip().splitlines() or [""]
        result.status, result.why = "failed", f"{type(error).__name__}: {told[0]}"
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        bench.save()
        sys.stdout.flush()


if __name__ == "__main__":
    do(Order(**json.loads(sys.argv[1])))
