"""`make comparison`: goes on where it was, and its page says what the results say."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from benchmarks.comparison.page import by_dataset, page
from benchmarks.comparison.picture import draw
from benchmarks.comparison.runs import FULL, Outcome, settings_of
from benchmarks.comparison.variants import VARIANTS

import tood
from tood.models.measure import measure

ROOT = Path(__file__).parents[1]


def command(*options: str) -> subprocess.CompletedProcess[str]:
    environment = {
        **os.environ,
        "PYTHONPATH": f"{Path(tood.__file__).parents[1]}{os.pathsep}{ROOT}",
        "OMP_NUM_THREADS": "1",
    }
    asked = [sys.executable, "-m", "benchmarks.comparison", *options]
    return subprocess.run(asked, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=600, check=False)


def outcomes(dataset: str, variant: str, *aps: float) -> list[Outcome]:
    return [
        Outcome(variant, dataset, seed, ap, ap + 0.2, ap - 0.1, 2336, 1_000_000, 2_000_000_000, settings_of(FULL), {})
        for seed, ap in enumerate(aps)
    ]


def test_a_quick_comparison_goes_on_where_it_was_stopped(tmp_path: Path) -> None:
    options = ("--quick", "--datasets", "digits", "--out", str(tmp_path))
    first = command(*options, "--only", "tood")
    assert first.returncode == 0, first.stdout + first.stderr
    done = tmp_path / "runs" / "digits-tood-0.json"
    before = done.stat().st_mtime_ns
    second = command(*options, "--only", "tood,focal")
    assert second.returncode == 0, second.stdout + second.stderr
    assert "1 of 2" not in second.stdout, "what is there is not made again"
    assert "2 of 2: digits, focal loss for TAL's, seed 0" in second.stdout
    assert done.stat().st_mtime_ns == before
    assert "| TOOD, focal loss for TAL's | 1 |" in (tmp_path / "comparison.md").read_text("utf-8")
    assert (tmp_path / "pictures" / "comparison.png").stat().st_size > 1000
    assert not any((tmp_path / "work").iterdir()), "nothing but the results is kept"
    wrong = command(*options, "--only", "toad")
    assert (wrong.returncode, wrong.stdout) == (2, "")
    assert wrong.stderr.startswith("error: there is no 'toad': choose from tood, atss,")


@pytest.mark.parametrize(
    ("rival", "beside", "verdict"),
    [
        ((0.30, 0.32, 0.31), "-0.100", "On these data it holds."),
        ((0.50, 0.51, 0.52), "+0.100", "On these data it does not hold."),
        ((0.30, 0.44, 0.40), "none", "These data show nothing of it."),
        ((0.30,), "(-0.110, one seed)", "cannot be said before all seeds are in"),
    ],
)
def test_a_difference_counts_where_it_is_larger_than_the_spread(
    rival: tuple[float, ...], beside: str, verdict: str, tmp_path: Path
) -> None:
    found = outcomes("digits", "tood", 0.40, 0.41, 0.42) + outcomes("digits", "atss", *rival)
    text = page(by_dataset(found), None, FULL)
    row = next(line for line in text.splitlines() if line.startswith("| ATSS |"))
    assert row.split(" | ")[-1].removesuffix(" |") == beside
    assert verdict in " ".join(text.split())
    assert "0.410 ± 0.010" in text
    assert "Unfinished" in text
    draw(by_dataset(found), tmp_path / "x.png")


def test_variants_have_one_budget_and_differ_in_one_part() -> None:
    whole = VARIANTS["tood"].run(256)
    adds = measure(whole.model).multiply_adds
    for key, variant in VARIANTS.items():
        run = variant.run(256)
        run.require_all_trained()
        assert (run.optimizer, run.schedule, run.ema) == (whole.optimizer, whole.schedule, whole.ema)
        if not variant.part:
            assert abs(measure(run.model).multiply_adds / adds - 1) < 0.1, key
        elif key != "parallel_head":
            same_model = run.model == whole.model
            assert same_model != (run.criterion == whole.criterion), "the network or how it learns"
            assert same_model or replace(run.model, head=whole.model.head) == whole.model
