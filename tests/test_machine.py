"""Cores that may be used, and threads on machines that others use too."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console
from typer.testing import CliRunner

import tood
from tood.cli import app
from tood.machine import SPINS, busy_sentence, settle_threads, usable_cores
from tood.training import DataConfig, train
from training.fakes import tiny_run
from training.pictures import coco_folder

CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def groups(root: Path, own: str, files: dict[str, str]) -> dict[str, Path]:
    for name, content in files.items():
        (root / "tree" / name).parent.mkdir(parents=True, exist_ok=True)
        (root / "tree" / name).write_text(content)
    (root / "tree").mkdir(exist_ok=True)
    (root / "own").write_text(own)
    return {"control_groups": root / "tree", "own_groups": root / "own"}


@pytest.fixture
def many_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(64)), raising=False)


@pytest.mark.parametrize(
    ("own", "files", "cores"),
    [
        ("0::/\n", {"cpu.max": "200000 100000\n"}, 2),
        ("0::/\n", {"cpu.max": "150000 100000\n"}, 2),
        ("0::/\n", {"cpu.max": "10000 100000\n"}, 1),
        ("0::/\n", {"cpu.max": "max 100000\n"}, 64),
        ("0::/\n", {"cpu.max": "9900000 100000\n"}, 64),
        ("0::/\n", {"cpu.max": "nonsense\n"}, 64),
        ("0::/\n", {"cpu.max": "100 0\n"}, 64),
        ("0::/\n", {}, 64),
        # The tightest of the groups around one counts.
        ("0::/a/b\n", {"cpu.max": "max 1", "a/cpu.max": "300000 100000", "a/b/cpu.max": "800000 100000"}, 3),
        ("0::/../other\n", {"cpu.max": "400000 100000"}, 4),
        # Version 1, where a controller has a tree of its own.
        (
            "9:memory:/x\n4:cpu,cpuacct:/box\n3:cpuset:/\n",
            {"cpu,cpuacct/box/cpu.cfs_quota_us": "250000\n", "cpu,cpuacct/box/cpu.cfs_period_us": "100000\n"},
            3,
        ),
        ("1:cpu:/\n", {"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, 64),
        ("1:cpu:/gone\n", {"cpu/cpu.cfs_quota_us": "200000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 2),
    ],
)
@pytest.mark.usefixtures("many_cores")
def test_a_container_s_limit_is_seen(tmp_path: Path, own: str, files: dict[str, str], cores: int) -> None:
    assert usable_cores(**groups(tmp_path, own, files)) == cores


def test_without_control_groups_all_cores_are_usable(tmp_path: Path) -> None:
    assert usable_cores(tmp_path, tmp_path / "none") == CORES


def test_threads_follow_a_container_s_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tood.machine.usable_cores", lambda: 2)
    monkeypatch.setattr("tood.machine._visible_cores", lambda: 64)
    environment: dict[str, str] = {}
    settle_threads(environment)
    assert environment == {"GOMP_SPINCOUNT": str(SPINS), "OMP_NUM_THREADS": "2"}


@pytest.mark.parametrize(
    "chosen",
    [
        {"OMP_WAIT_POLICY": "active", "OMP_NUM_THREADS": "7"},
        {"GOMP_SPINCOUNT": "5", "MKL_NUM_THREADS": "7"},
    ],
)
def test_what_a_person_has_set_stays(monkeypatch: pytest.MonkeyPatch, chosen: dict[str, str]) -> None:
    monkeypatch.setattr("tood.machine.usable_cores", lambda: 2)
    monkeypatch.setattr("tood.machine._visible_cores", lambda: 64)
    environment = dict(chosen)
    settle_threads(environment)
    assert environment == chosen


@pytest.mark.parametrize(
    ("running", "cores", "sleeps"), [(1, 64, False), (2, 64, True), (9, 64, True), (9, 2, False), (70, 2, True)]
)
def test_threads_sleep_where_others_need_the_cores(
    running: int, cores: int, sleeps: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("os.cpu_count", lambda: 64)
    monkeypatch.setattr("tood.machine.usable_cores", lambda: cores)
    monkeypatch.setattr("tood.machine._visible_cores", lambda: cores)
    (tmp_path / "loadavg").write_text(f"0.10 0.20 0.30 {running}/345 6789\n")
    environment: dict[str, str] = {}
    settle_threads(environment, tmp_path / "loadavg")
    assert environment == ({"GOMP_SPINCOUNT": str(SPINS)} if sleeps else {})


@pytest.mark.parametrize("told", [None, "", "a b c", "0.1 0.2 0.3 many/345 1"])
def test_a_machine_that_tells_nothing_counts_as_quiet(
    told: str | None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for asked in ("os.cpu_count", "tood.machine.usable_cores", "tood.machine._visible_cores"):
        monkeypatch.setattr(asked, lambda: 4)
    if told is not None:
        (tmp_path / "loadavg").write_text(told)
    environment: dict[str, str] = {}
    settle_threads(environment, tmp_path / "loadavg")
    assert environment == {}


@pytest.mark.parametrize(("load", "cores", "busy"), [(0.3, 2, False), (1.9, 2, False), (2.0, 2, True), (63, 64, False)])
def test_a_busy_machine_is_told_with_what_helps(load: float, cores: int, busy: bool) -> None:
    sentence = busy_sentence(load, cores)
    assert bool(sentence) == busy
    assert ("--threads" in sentence) == busy


def test_the_word_about_a_busy_machine_stands_in_the_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = coco_folder(tmp_path / "data")
    for load, told in ((1000.0, True), (0.0, False)):
        monkeypatch.setattr("os.getloadavg", lambda load=load: (load, 0.0, 0.0), raising=False)
        run = tmp_path / f"run{told}"
        said = io.StringIO()
        config = replace(tiny_run(run), epochs=1, data=DataConfig(path=str(data), workers=0))
        train(config, console=Console(file=said, width=200))
        assert ("this machine is busy: 1000.0 processes" in said.getvalue()) == told
        options = ["--model", str(run), "--out", str(tmp_path / "out"), "--device", "cpu"]
        done = CliRunner().invoke(app, ["predict", str(next(data.rglob("*.png"))), *options])
        assert done.exit_code == 0, done.output
        assert ("this machine is busy" in done.stderr) == told


def in_command(arguments: str, **environment: str) -> str:
    """What PyTorch's OpenMP says it goes by in a process of the command, and the threads that are computed with."""
    code = (
        "import sys\n"
        "from tood.cli import main as command\n"
        f"sys.argv = ['tood', *{arguments.split()}]\n"
        "try:\n    command()\n"
        "except SystemExit: pass\n"
        "import torch; print('threads', torch.get_num_threads())\n"
    )
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("OMP", "GOMP", "MKL"))}
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**kept, "PYTHONPATH": str(Path(tood.__file__).parents[1]), "OMP_DISPLAY_ENV": "verbose", **environment},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout + done.stderr


@pytest.mark.skipif(sys.platform != "linux", reason="GNU's OpenMP is what PyTorch has on Linux")
def test_openmp_hears_of_it_before_pytorch_is_loaded() -> None:
    spinning = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(1 + (os.cpu_count() or 1))]
    try:
        time.sleep(0.2)
        assert f"GOMP_SPINCOUNT = '{SPINS}'" in in_command("--version")
    finally:
        for process in spinning:
            process.kill()
            process.wait()
    assert "GOMP_SPINCOUNT = '77'" in in_command("--version", GOMP_SPINCOUNT="77")


@pytest.mark.parametrize("command", ["predict none.jpg", "eval", "train --data none"])
def test_threads_are_what_is_asked_for(command: str) -> None:
    assert "threads 3" in in_command(f"{command} --threads 3", OMP_NUM_THREADS="1")


def test_no_threads_are_none() -> None:
    said = in_command("predict none.jpg --threads 0")
    assert "--threads" in said
    assert "Invalid value" in said
