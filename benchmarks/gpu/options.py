"""What may be asked of `make bench-gpu`: by the standard library alone, as `start.py` has nothing else."""

from __future__ import annotations

import argparse
from pathlib import Path

from benchmarks.gpu.parts import PARTS

ROOT = Path(__file__).resolve().parents[2]
NAMES = ", ".join(part.name for part in PARTS)


def options() -> argparse.ArgumentParser:
    """A parser of them, to be the parent of one with a name and a description."""
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--out", type=Path, help="folder of the results (benchmarks/results/gpu, gpu-dry-run)")
    parser.add_argument("--parts", default="", help=f"separated by commas, all if left out: {NAMES}")
    parser.add_argument("--minutes", type=float, default=7.5, help="that everything may take, the environment included")
    parser.add_argument("--again", action="store_true", help="also what has its results")
    parser.add_argument("--dry-run", action="store_true", help="tiny sizes on the CPU: whether every part works")
    parser.add_argument("--together", type=Path, help="file that gets all results, written anew after each part")
    parser.add_argument("--golden", type=Path, default=ROOT / "tests" / "golden", help="folder of the golden values")
    parser.add_argument("--peers", type=Path, default=ROOT / ".peers", help="folder that `make bench-peers` made")
    return parser
