"""Runs the parts and tells what they found: `python -m benchmarks.gpu`, in the environment that `start.py` makes.

The page in docs/, which has notes by hand, is another command's: `python -m benchmarks.gpu.report FOLDER`.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
import time
from dataclasses import asdict
from pathlib import Path

from benchmarks.gpu.options import NAMES, ROOT, options
from benchmarks.gpu.parts import PARTS, rounds
from benchmarks.gpu.report import page
from benchmarks.gpu.result import Result, load
from benchmarks.gpu.runner import Runner
from tood.errors import quoted
from tood.machine import usable_cores


def main() -> int:
    """The exit code: 0 if all parts did what they could and everything held."""
    parser = argparse.ArgumentParser(prog="bench-gpu", description=__doc__, parents=[options()])
    parser.add_argument("--began", type=float, default=time.time(), help=argparse.SUPPRESS)
    asked = parser.parse_args()
    wanted = [name for name in asked.parts.split(",") if name] or [part.name for part in PARTS]
    unknown = set(wanted) - {part.name for part in PARTS}
    if unknown:
        return _refuse(f"there is no part {', '.join(sorted(unknown))}: there are {NAMES}")
    if not 0 < asked.minutes < math.inf:
        return _refuse(f"--minutes is {asked.minutes:g}: expected a number above 0")
    out = asked.out or ROOT / "benchmarks" / "results" / ("gpu-dry-run" if asked.dry_run else "gpu")
    # The parts' processes are started by name.
    os.environ["PYTHONPATH"] = os.pathsep.join([str(ROOT / "src"), str(ROOT)])
    if asked.dry_run:
        if any(not result.dry_run for result in _found(out)):
            return _refuse(f"{out} holds results of a GPU, which a dry run would replace: give another --out")
    elif not _has_gpu():
        return _refuse("PyTorch sees no GPU here: --dry-run tries every part on the CPU")
    folders = asked.golden.absolute(), asked.peers.absolute()
    # A machine that others use too may take long over a dry run, which says nothing of its parts.
    patience = 10.0 if asked.dry_run else 1.0
    deadline = asked.began + asked.minutes * 60 * patience
    runner = Runner(out.absolute(), asked.dry_run, *folders, deadline, asked.again, patience)
    good = True
    for parts in rounds([part for part in PARTS if part.name in wanted]):
        good = all(result.good for result in runner.run(parts, usable_cores())) and good
        if asked.together is not None:
            asked.together.write_text(json.dumps([asdict(result) for result in _found(out)]), encoding="utf-8")
    results = _found(out)
    (out / "report.md").write_text(page(results), encoding="utf-8")
    print(f"{out / 'report.md'}", file=sys.stderr)
    if not asked.dry_run:
        command = f"python -m benchmarks.gpu.report {quoted(out)}"
        print(f"`{command}` puts it in place of docs/benchmarks-gpu.md and the notes there", file=sys.stderr)
    return 0 if good else 1


def _found(out: Path) -> list[Result]:
    return [result for part in PARTS if (result := load(out / "parts" / f"{part.name}.json")) is not None]


def _has_gpu() -> bool:
    import torch

    return torch.cuda.is_available()


def _refuse(sentence: str) -> int:
    print(f"bench-gpu: {sentence}", file=sys.stderr)
    return 2


if __name__ == "__main__":
    raise SystemExit(main())
