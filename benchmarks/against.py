"""Another commit's figures beside this one's: `python -m benchmarks.against FOLDER`, a checkout of that commit.

Each measurement is a process of its own, run in the checkout that it measures; the checkouts take turns, so that a slow
minute of the machine meets both. Per line: the best of the rounds of each, and by how much ours is larger. It asks for
a quiet machine.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parents[1]
SUBJECTS = {
    "network": ("benchmarks.rows_network",),
    "step": ("benchmarks.rows_network", "step"),
    "assign": ("benchmarks.rows_assign",),
    "start": ("benchmarks.rows_start",),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("other", type=Path, help="a checkout of the commit to compare with")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", default=",".join(SUBJECTS), help="subjects, separated by commas")
    options = parser.parse_args()
    print(f"load {os.getloadavg()[0]:.1f} at the start")
    for subject in options.only.split(","):
        best: dict[str, dict[Path, float]] = {}
        unit: dict[str, str] = {}
        for _ in range(options.rounds):
            for checkout in (options.other.resolve(), HERE):
                for line in _measured(checkout, SUBJECTS[subject]):
                    better = max if line["unit"].endswith("/s") else min
                    found = best.setdefault(line["name"], {})
                    found[checkout] = better(found.get(checkout, line["value"]), line["value"])
                    unit[line["name"]] = line["unit"]
        for name, found in best.items():
            if len(found) == 2:
                theirs, ours = found.values()
                change = f"{100 * (ours / theirs - 1):+.1f} %" if theirs else "-"
                print(f"{name:40} {theirs:10.2f} {ours:10.2f} {unit[name]:8} {change}", flush=True)


def _measured(checkout: Path, command: tuple[str, ...]) -> list[dict[str, Any]]:
    """The lines that a module of a checkout prints about itself."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(checkout / "src"), str(checkout)])}
    done = subprocess.run(
        [sys.executable, "-m", *command], cwd=checkout, env=environment, stdout=subprocess.PIPE, text=True, check=True
    )
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]


if __name__ == "__main__":
    main()
