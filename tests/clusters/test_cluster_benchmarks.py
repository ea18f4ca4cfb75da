"""What the benchmark of Ray runs takes for a kill."""

from __future__ import annotations

import random
import sys
from pathlib import Path

import pytest
from benchmarks.cluster_interruptions import Killed, kill_one_run


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
def test_kills_count_that_meet_a_run_with_work_left(tmp_path: Path) -> None:
    part = tmp_path / "part-0.parquet"
    writes = f"import pathlib, time; pathlib.Path({str(part)!r}).touch()"
    ends = "raise SystemExit(2)"  # as some pictures cannot be read
    # By this chance the kill waits for a result; the first run has ended then, the second has nothing left to do.
    assert kill_one_run([sys.executable, "-c", f"{writes}; {ends}"], tmp_path, random.Random(0), 1) == Killed(
        False, False, True
    )
    part.unlink()
    lingers = f"{writes}; time.sleep(1.5); {ends}"
    assert not kill_one_run([sys.executable, "-c", lingers], tmp_path, random.Random(0), 1).hit
    part.unlink()
    lasts = f"{writes}; time.sleep(600)"
    assert kill_one_run([sys.executable, "-c", lasts], tmp_path, random.Random(0), 2) == Killed(True, False, False)
