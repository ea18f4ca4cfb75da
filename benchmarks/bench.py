"""One table, `make bench`: ours, every peer, the ratio to reach, and what the machine gives.

Every figure comes from a process of its own. They take turns (ours, peers, ours, ...), so that a machine whose speed
drifts treats all alike, and the best of each counts.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks.rows import LIMIT, OURS, SUBJECTS, Row, rows

ROOT = Path(__file__).parents[1]
LONG_ROW = "ap-per-minute"
PROBE = ("benchmarks.probe",)
# A peer's slowest subject, on a slow machine.
PATIENCE_SECONDS = 1800

# By who and line: (value, unit).
Figures = dict[tuple[str, str], tuple[float, str]]


@dataclass(frozen=True)
class Result:
    """A row, measured; `peer`, `theirs`, `ratio` and `met` are None where there was nobody to compare with."""

    row: str
    line: str
    unit: str
    ours: float
    peer: str | None
    theirs: float | None
    ratio: float | None
    target: str
    met: bool | None


def main() -> None:
    """Measures, prints and writes the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", default="", help="names, or their beginnings, separated by commas; all if left out")
    parser.add_argument("--peers", type=Path, default=Path(".peers"), help="folder that `make bench-peers` made")
    parser.add_argument(
        "--out", type=Path, default=ROOT / "benchmarks" / "results", help="folder for bench.md, bench.json"
    )
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--quick", action="store_true", help="one round, few repetitions: a look, not a measurement")
    arguments = parser.parse_args()
    wanted = [name for name in arguments.rows.split(",") if name]
    if LONG_ROW in wanted:
        long = [sys.executable, "-m", "benchmarks.ap_per_minute", "--out", str(arguments.out)]
        long += ["--peers", str(arguments.peers), *(["--minutes", "0.5"] if arguments.quick else [])]
        subprocess.run(long, check=True, cwd=ROOT)
        wanted.remove(LONG_ROW)
        if not wanted:
            return
    chosen = [row for row in rows() if not wanted or any(row.name.startswith(name) for name in wanted)]
    if not chosen:
        names = ", ".join(dict.fromkeys(row.name for row in rows()))
        raise SystemExit(f"bench: no row is called {arguments.rows}: there are {names}, {LONG_ROW}")
    python = arguments.peers.absolute() / "python"
    if not python.exists():
        print(f"bench: no peers in {arguments.peers} (`make bench-peers` sets them up): ours alone", file=sys.stderr)
    figures = measure(chosen, python if python.exists() else None, arguments.threads, arguments.quick)
    results = without_repetition([result for row in chosen if (result := compare(row, figures)) is not None])
    text = markdown(results, figures, arguments.threads, arguments.quick)
    print(text)
    arguments.out.mkdir(parents=True, exist_ok=True)
    (arguments.out / "bench.md").write_text(text + "\n", encoding="utf-8")
    content = {
        "machine": machine(arguments.threads),
        "quick": arguments.quick,
        "rows": [asdict(result) for result in results],
        "figures": [{"who": who, "line": line, "value": v, "unit": u} for (who, line), (v, u) in figures.items()],
    }
    (arguments.out / "bench.json").write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def measure(chosen: list[Row], peers: Path | None, threads: int, quick: bool) -> Figures:
    """Runs what the rows need, in turns; the best figure of each line."""
    figures: Figures = {}
    run((sys.executable, *module(PROBE)), LIMIT, figures, threads, quick)
    for name in dict.fromkeys(row.subject for row in chosen):
        subject = SUBJECTS[name]
        others = [(who, (sys.executable, *module(command))) for who, command in subject.beside.items()]
        if peers is not None:
            others += [(who, (str(peers), *module(command))) for who, command in subject.peers.items()]
        ours = (OURS, (sys.executable, *module(subject.ours)))
        turns = [ours, *others] if quick else [ours, *others, ours, *others, ours]
        for who, command in turns:
            run(command, who, figures, threads, quick)
    run((sys.executable, *module(PROBE)), LIMIT, figures, threads, quick)
    return figures


def module(command: tuple[str, ...]) -> tuple[str, ...]:
    """How Python runs it."""
    return ("-m", *command)


def run(command: tuple[str, ...], who: str, figures: Figures, threads: int, quick: bool) -> None:
    """Adds what one process prints; a peer that fails is said and left out, we may not fail."""
    print(f"{time.strftime('%H:%M:%S')} {who}: {' '.join(command[2:])}", file=sys.stderr, flush=True)
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)}
    environment |= {"TOOD_BENCH_QUICK": "1" if quick else "0", "YOLO_OFFLINE": "1"}
    if command[0] == sys.executable:
        environment["PYTHONPATH"] = os.pathsep.join([str(ROOT / "src"), str(ROOT)])
    done = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=PATIENCE_SECONDS, check=False
    )
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        sentence = f"bench: {' '.join(command)} failed: {last}"
        if who == OURS:
            raise SystemExit(sentence)
        print(sentence, file=sys.stderr)
    for line in done.stdout.splitlines():
        if not line.startswith('{"name"'):
            continue  # libraries talk
        figure = json.loads(line)
        key, value, unit = (who, figure["name"]), float(figure["value"]), figure["unit"]
        before = figures.get(key, (value, unit))[0]
        figures[key] = (max(before, value) if unit.endswith("/s") else min(before, value), unit)


def compare(row: Row, figures: Figures) -> Result | None:
    """The row's result; None if our line was not measured."""
    if (OURS, row.line) not in figures:
        return None
    value, unit = figures[OURS, row.line]
    theirs = figures.get((row.against, row.their_line or row.line)) if row.against else None
    reference = theirs[0] if theirs else None
    sign = "≥" if row.more_is_better else "≤"
    target = "" if row.target is None else f"{sign} {fraction(row.target) if row.against else f'{row.target:g} {unit}'}"
    measured = value if row.against is None else value / reference if reference else None
    met = None
    if row.target is not None and measured is not None:
        met = measured >= row.target if row.more_is_better else measured <= row.target
    ratio = value / reference if reference else None
    return Result(row.name, row.line, unit, value, row.against, reference, ratio, target, met)


def without_repetition(results: list[Result]) -> list[Result]:
    """One row, not one a peer, of a figure of ours that no peer was there for."""
    measured = {result.line for result in results if result.theirs is not None or result.peer is None}
    kept: dict[str, Result] = {}
    for result in results:
        alone = result.theirs is None and result.peer is not None
        if not (alone and (result.line in measured or result.line in kept)):
            kept[f"{result.line} {result.peer}" if not alone else result.line] = result
    return list(kept.values())


def fraction(value: float) -> str:
    """1/25 for what is set as a part of the peer's, decimals else."""
    return f"1/{1 / value:.0f}" if value < 0.2 and abs(1 / value - round(1 / value)) < 1e-6 else f"{value:.2f}"


def ratio_text(ratio: float | None) -> str:
    """The same for what was measured."""
    if ratio is None:
        return ""
    return f"1/{1 / ratio:.1f}" if ratio < 0.2 else f"{ratio:.2f}"


def markdown(results: list[Result], figures: Figures, threads: int, quick: bool) -> str:
    """The table, and under it what the machine gave."""
    lines = [
        f"{machine(threads)['text']}{'; a quick look, not a measurement' if quick else ''}",
        "",
        "| row | measured | ours | peer | its figure | ratio | target | |",
        "|---|---|---:|---|---:|---:|---:|---|",
    ]
    verdicts = {True: "met", False: "**missed**", None: ""}
    for r in results:
        theirs = "" if r.theirs is None else number(r.theirs, r.unit)
        peer = r.peer or ""
        verdict = verdicts[r.met] if r.theirs is not None or r.peer is None else "not measured"
        lines.append(
            f"| {r.row} | {r.line} | {number(r.ours, r.unit)} | {peer} | {theirs} | {ratio_text(r.ratio)} | {r.target} "
            f"| {verdict} |"
        )
    limits = [f"{line} {value:,.0f}" for (who, line), (value, _) in figures.items() if who == LIMIT]
    return "\n".join([*lines, "", f"The machine's limit, GFLOP/s: {', '.join(limits)}."])


def number(value: float, unit: str) -> str:
    """With three digits that say something."""
    digits = max(0, 2 - len(f"{abs(value):.0f}") + 1) if abs(value) >= 1 else 3
    return f"{value:,.{digits}f} {unit}".rstrip()


def machine(threads: int) -> Mapping[str, object]:
    """What it was measured on."""
    from importlib.metadata import version

    name = platform.processor() or platform.machine()
    facts = Path("/proc/cpuinfo")
    if facts.exists():
        lines = facts.read_text().splitlines()
        name = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), name)
        flags = next((line.split() for line in lines if line.startswith("flags")), [])
        name += "".join(
            f" with {what}" for flag, what in (("amx_bf16", "AMX"), ("avx512_bf16", "AVX-512 BF16")) if flag in flags
        )
    versions = f"torch {version('torch')}, Python {platform.python_version()}"
    text = f"{name}, {threads} threads, {versions}, {time.strftime('%Y-%m-%d')}"
    return {"cpu": name, "threads": threads, "torch": version("torch"), "text": text}


if __name__ == "__main__":
    main()
