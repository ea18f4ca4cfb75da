"""The page made of the results: `python -m benchmarks.gpu.report FOLDER_OR_FILE` writes docs/benchmarks-gpu.md."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.bench import number
from benchmarks.gpu.parts import PARTS, Part
from benchmarks.gpu.result import Result, from_json, load

PAGE = Path(__file__).parents[2] / "docs" / "benchmarks-gpu.md"
# A cell of a table of rates: so many images of a model, in a column.
_IMAGES = re.compile(r"([^,]+), (\d+) images?, (.+)")
DRY = "**A dry run on a CPU at tiny sizes: its figures say nothing, only that they can be taken.**"


def page(results: Sequence[Result]) -> str:
    """All results as Markdown."""
    by_name = {result.part: result for result in results}
    found = [(part, by_name[part.name]) for part in PARTS if part.name in by_name]
    machine = by_name["machine"].facts if "machine" in by_name else {}
    lines = ["# On a GPU", ""]
    lines += [DRY, ""] if any(result.dry_run for result in results) else []
    lines += [
        "Written by `make bench-gpu` from what it measured. " + _machine(machine),
        "",
        "| part | | seconds | holds |",
        "|---|---|---:|---|",
    ]
    for part, result in found:
        met = sum(check.met for check in result.checks)
        held = f"{met} of {len(result.checks)}" if result.checks else ""
        lines.append(f"| {part.title} | {_status(result)} | {result.seconds:.0f} | {held} |")
    for part, result in found:
        lines += _section(part, result)
    return "\n".join(lines) + "\n"


def _machine(facts: dict[str, str]) -> str:
    return "; ".join(f"{name} {text}" for name, text in facts.items()) + "." if facts else ""


def _status(result: Result) -> str:
    told = result.status if result.status == "done" else f"**{result.status}**"
    return _in_cell(f"{told}: {result.why}" if result.why else told)


def _section(part: Part, result: Result) -> list[str]:
    lines: list[str] = []
    for name, rows in result.tables.items():
        columns = list(dict.fromkeys(column for cells in rows.values() for column in cells))
        lines += ["", f"| {name} | {' | '.join(columns)} |", f"|---|{'---:|' * len(columns)}"]
        for row, cells in rows.items():
            figures = [_figure(*cells[column]) if column in cells else "" for column in columns]
            lines.append(f"| {_in_cell(row)} | {' | '.join(figures)} |")
    missed = [check for check in result.checks if not check.met]
    met = [check for check in result.checks if check.met]
    lines += ["", *(f"- **Missed**: {check.name}: {check.told}" for check in missed)] if missed else []
    if met:
        lines += ["", f"<details><summary>What holds ({len(met)})</summary>", ""]
        lines += [f"- {check.name}{f': {check.told}' if check.told else ''}" for check in met]
        lines += ["", "</details>"]
    lines += ["", " ".join(result.notes)] if result.notes else []
    lines += _left_out(result.left_out)
    return ["", f"## {part.title}", *lines] if lines else []


def _left_out(whats: Sequence[str]) -> list[str]:
    """What there was no time for: numbers of images in a table that has models and columns once, and the rest."""
    cells: dict[str, dict[str, list[int]]] = {}
    others = []
    for what in whats:
        if found := _IMAGES.fullmatch(what):
            model, images, column = found.groups()
            cells.setdefault(model, {}).setdefault(column, []).append(int(images))
        else:
            others.append(what)
    lines = ["", f"Left out, the time being up: {'; '.join(others)}."] if others else []
    if cells:
        columns = list(dict.fromkeys(column for row in cells.values() for column in row))
        lines += ["", f"| images at once, left out, the time being up | {' | '.join(columns)} |"]
        lines.append(f"|---|{'---|' * len(columns)}")
        for model, row in cells.items():
            numbers = [", ".join(map(str, sorted(row.get(column, [])))) for column in columns]
            lines.append(f"| {model} | {' | '.join(numbers)} |")
    return lines


def _figure(value: float, unit: str) -> str:
    return f"{value:.1e} {unit}".rstrip() if 0 < abs(value) < 0.01 else number(value, unit)


def _in_cell(text: str) -> str:
    return text.replace("|", "\\|")


def main() -> None:
    """Writes the page of results that were measured elsewhere: a folder of them, or the file of `--together`."""
    if len(sys.argv) != 2:
        raise SystemExit(f"report: give the folder of the results, or their file\n{__doc__}")
    source = Path(sys.argv[1])
    if source.is_dir():
        results = [result for path in sorted((source / "parts").glob("*.json")) if (result := load(path))]
    else:
        results = [from_json(content) for content in json.loads(source.read_text(encoding="utf-8"))]
    if not results or any(result.dry_run for result in results):
        raise SystemExit(f"report: {source} holds no results of a GPU, so there is nothing to tell")
    PAGE.write_text(page(results), encoding="utf-8")
    print(PAGE)


if __name__ == "__main__":
    main()
