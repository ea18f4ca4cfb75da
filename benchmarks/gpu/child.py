"""A part at work, in the process that is its own: its results, its log, its end."""

from __future__ import annotations

import os
import shutil
import sys
import traceback
from importlib import import_module
from pathlib import Path

# What the server of these processes has imported before it splits: nothing that touches a GPU.
PRELOADED = ["torch", "tood.training", "tood.evaluation", "benchmarks.gpu.work", "benchmarks.gpu.bench"]


def work(
    does: str, name: str, settings: tuple[bool, str, str], path: Path, log: Path, folder: Path, limit: float
) -> None:
    """Does a part and writes its file.

    Args:
        does: module and function.
        name: of the part.
        settings: fields of `Settings`.
        path: of its results.
        log: where all that it prints goes.
        folder: for files of its own, gone afterwards.
        limit: seconds that it may take.
    """
    os.setsid()  # whoever ends it ends its own processes too
    stream = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(stream, 1)
    os.dup2(stream, 2)
    from benchmarks.gpu.bench import Bench, Left, Settings
    from benchmarks.gpu.result import Result

    dry_run, golden, peers = settings
    result = Result(name, dry_run)
    bench = Bench(Settings(dry_run, Path(golden), Path(peers)), result, path, folder, limit)
    folder.mkdir(parents=True, exist_ok=True)
    try:
        module, _, function = does.partition(":")
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
