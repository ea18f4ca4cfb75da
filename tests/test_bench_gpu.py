"""`make bench-gpu` on the CPU: that every part can be done, and that no part's end is another's."""

from __future__ import annotations

import itertools
import os
import re
import subprocess
import sys
import time
from dataclasses import replace
from multiprocessing.process import BaseProcess
from pathlib import Path

import numpy as np
import pytest
import torch
from benchmarks.gpu import __main__ as runs
from benchmarks.gpu import report, start
from benchmarks.gpu.bench import Bench
from benchmarks.gpu.child import Order, do
from benchmarks.gpu.machine import DATA_SHEET, bf16_data_sheet
from benchmarks.gpu.parts import PARTS, Part, rounds
from benchmarks.gpu.report import DRY, PAGE, page
from benchmarks.gpu.result import Check, Result, load
from benchmarks.gpu.runner import Runner
from benchmarks.gpu.start import environment, requirements
from benchmarks.gpu.work import named_run, training_flops

import tood
from narrow_models import FREE
from tood.models.measure import measure

ROOT = Path(__file__).parents[1]
SETTINGS = True, Path("golden"), Path("peers")


def dry_run(out: Path, *options: str, module: str = "benchmarks.gpu") -> subprocess.CompletedProcess[str]:
    path = f"{Path(tood.__file__).parents[1]}{os.pathsep}{ROOT}"
    environment = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", module, *([] if module.endswith("report") else ["--dry-run", "--out"]), str(out)]
    return subprocess.run([*command, *options], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=600)


def test_every_part_works_and_one_that_fails_stops_no_other(tmp_path: Path) -> None:
    out, together, before = tmp_path / "out", tmp_path / "all.json", PAGE.read_text()
    done = dry_run(out, "--golden", str(tmp_path / "nowhere"), "--together", str(together))
    found = {part.name: load(out / "parts" / f"{part.name}.json") for part in PARTS}
    told = done.stderr + "".join(log.read_text() for log in (out / "logs").glob("*.txt"))
    assert done.returncode == 1, told
    golden = found.pop("golden")
    assert golden is not None
    assert golden.status == "failed"
    assert "No such file" in golden.why
    for name, result in found.items():
        assert result is not None, name
        assert result.good, f"{name}: {result}\n{told}"
        assert result.dry_run
        assert result.tables or result.checks or result.status == "skipped", name
    assert [name for name, result in found.items() if result and result.status == "skipped"] == ["mmdetection"]
    assert DRY in (out / "report.md").read_text()
    assert together.read_text().count('"part"') == len(PARTS)

    again = dry_run(out)  # what has its results is not done again
    assert again.returncode == 0, again.stderr
    assert again.stderr.count("(as before)") == len(PARTS) - 1
    written = dry_run(out, module="benchmarks.gpu.report")
    assert written.returncode == 1
    assert "no results of a GPU" in written.stderr
    assert PAGE.read_text() == before


def test_measuring_leaves_the_page_and_its_notes_as_they_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runs, "_has_gpu", lambda: True)  # nothing is measured: the part has its results
    (tmp_path / "out" / "parts").mkdir(parents=True)
    Result("machine", False, "done").save(tmp_path / "out" / "parts" / "machine.json")
    for module in (runs, report):
        monkeypatch.setattr(module, "PAGE", tmp_path / "page.md", raising=False)
    monkeypatch.setenv("PYTHONPATH", "")
    monkeypatch.setattr(sys, "argv", ["bench-gpu", "--out", str(tmp_path / "out"), "--parts", "machine"])
    assert runs.main() == 0
    assert (tmp_path / "out" / "report.md").is_file()
    assert not (tmp_path / "page.md").exists()


@pytest.mark.parametrize("minutes", ["-1", "0", "nan", "inf"])
def test_a_time_that_cannot_be_is_refused(
    minutes: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["bench-gpu", "--dry-run", "--out", str(tmp_path / "out"), "--minutes", minutes])
    assert runs.main() == 2
    assert capsys.readouterr().err == f"bench-gpu: --minutes is {minutes}: expected a number above 0\n"
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("code", [0, 3])
def test_a_peer_that_crashes_or_says_nothing_has_failed(code: int, tmp_path: Path) -> None:
    (tmp_path / "python").write_text(f"#!/bin/sh\nexit {code}\n")
    (tmp_path / "python").chmod(0o755)
    path, places = tmp_path / "result.json", (str(tmp_path / "log"), str(tmp_path / "work"))
    do(Order("benchmarks.gpu.mmdetection:run", "mmdetection", False, "", str(tmp_path), str(path), *places, limit=60))
    found = load(path)
    assert found is not None
    assert (found.status, found.good) == ("failed", False)
    assert f"ended with code {code}, 0 figures taken" in found.why


def ends_badly(bench: Bench) -> None:
    bench.cell("a table", "a row", "a column", 1.0, "")
    os._exit(3)


def never_ends(bench: Bench) -> None:
    bench.cell("a table", "a row", "a column", 1.0, "")
    subprocess.run(["sleep", "600"], check=False)


def goes_on(bench: Bench) -> None:
    with bench.trying("a figure"):
        raise ValueError("cannot be taken")
    with bench.trying("a large figure"):
        raise torch.OutOfMemoryError("40 GiB")
    bench.check("another figure", True)


def test_what_a_part_found_before_its_end_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT / "src"), str(ROOT), str(ROOT / "tests")]))
    parts = [Part(f.__name__, f"test_bench_gpu:{f.__name__}", 900, "") for f in (ends_badly, never_ends, goes_on)]
    parts[1] = replace(parts[1], seconds=1)
    join, written = BaseProcess.join, tmp_path / "parts" / "never_ends.json"

    def join_once_written(process: BaseProcess, timeout: float | None = None) -> None:
        while timeout == 1 and "a row" not in written.read_text() and process.is_alive():
            time.sleep(0.05)  # its second begins with what is to be kept, however long the start takes
        join(process, timeout)

    monkeypatch.setattr(BaseProcess, "join", join_once_written)
    found = Runner(tmp_path, *SETTINGS, time.time() + 6000).run(parts)
    assert [result.status for result in found] == ["failed", "timed out", "done"]
    assert "code 3" in found[0].why
    assert all(result.tables == {"a table": {"a row": {"a column": [1.0, ""]}}} for result in found[:2])
    assert found[2].checks == [
        Check("a figure", False, "ValueError: cannot be taken"),
        Check("another figure", True, ""),
    ]
    assert found[2].notes == ["a large figure: the GPU's memory does not hold it."]
    assert not found[2].good
    (late,) = Runner(tmp_path, *SETTINGS, time.time() + 5, again=True).run(parts[2:])
    assert late.status == "not started"


def meets_the_other(bench: Bench) -> None:
    folder = bench.folder.parent.parent / "met"
    folder.mkdir(exist_ok=True)
    (folder / bench.result.part).touch()
    end = time.time() + 600
    while len(list(folder.iterdir())) < 2 and time.time() < end:
        time.sleep(0.05)
    bench.check("both are at work", len(list(folder.iterdir())) == 2, f"{torch.get_num_threads()} threads")


def test_parts_without_timings_run_side_by_side_where_there_are_cores(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT / "src"), str(ROOT), str(ROOT / "tests")]))
    parts = [Part(name, "test_bench_gpu:meets_the_other", 900, "", timed=False) for name in ("one", "other")]
    found = Runner(tmp_path, *SETTINGS, time.time() + 6000).run(parts, cores=7)
    assert [result.checks for result in found] == [[Check("both are at work", True, "3 threads")]] * 2
    timed = Part("a", "", 1, "")
    assert rounds([timed, *parts, timed, timed]) == [[timed], parts, [timed], [timed]]


def test_the_page_shows_figures_and_what_was_missed() -> None:
    machine = Result("machine", False, "done", facts={"GPU": "NVIDIA H100"})
    golden = Result("golden", False, "timed out", "after 60 s", 60.0)
    rows = {"fp32": {"scores": (0.00012, ""), "boxes": (12.3, "MiB")}, "bf16": {"boxes": (1.0, "")}}
    golden.tables = {"distance": rows}
    golden.checks = [Check("a thing", False, "3 differ"), Check("another", True, "")]
    text = page([golden, machine])
    assert "GPU NVIDIA H100." in text
    assert DRY not in text
    assert "| Golden values on the device | **timed out**: after 60 s | 60 | 1 of 2 |" in text
    assert "| fp32 | 1.2e-04 | 12.3 MiB |\n| bf16 |  | 1.00 |" in text
    assert "- **Missed**: a thing: 3 differ" in text
    assert "<summary>What holds (1)</summary>\n\n- another" in text
    golden.left_out = ["bf16", "fp16"]
    assert "Left out, the time being up: bf16; fp16." in page([golden])
    assert "images at once" not in page([golden])


def test_what_there_was_no_time_for_names_models_and_columns_once() -> None:
    many = itertools.product(("a, b", "c"), ("8 images", "1 image"), "xy")
    missed = [f"{model}, {images}, {column}" for column, images, model in many]
    golden = Result("golden", False, "done", left_out=[*missed[1:], "z, compiled"])
    text = page([golden])
    head = "| images at once, left out, the time being up | a, b | c |\n|---|---|---|\n"
    table = f"{head}| y | 1, 8 | 1, 8 |\n| x | 1 | 1, 8 |\n"
    assert text.endswith(f"Left out, the time being up: z, compiled.\n\n{table}")


def test_operations_are_counted_as_the_cost_of_a_network_is() -> None:
    learns = replace(FREE, backbone=replace(FREE.backbone, frozen_stages=-1))
    forward = 2 * measure(learns).multiply_adds
    # Two products back for each forward, but for the gradient of the image.
    assert 2.8 * forward < training_flops(learns) < 3 * forward
    assert training_flops(FREE) < training_flops(learns)


def test_operations_of_depthwise_convolutions_are_not_counted_as_of_dense_ones() -> None:
    config = named_run("yolox_nano", torch.device("cpu")).model
    forward = 2 * measure(config).multiply_adds
    assert 2.7 * forward < training_flops(config) < 3 * forward


def test_a_card_is_found_by_the_longest_name(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, wanted in (
        ("NVIDIA H100 80GB HBM3", 989.4),
        ("NVIDIA H100 PCIe", 756.0),
        ("NVIDIA A100-SXM4-80GB", 312.0),
        ("NVIDIA L40S", 362.0),
        ("NVIDIA L40", None),
        ("NVIDIA A10G", None),
    ):
        monkeypatch.setattr(torch.cuda, "get_device_name", lambda device, name=name: name)
        assert bf16_data_sheet(torch.device("cuda")) == wanted, name
    assert bf16_data_sheet(torch.device("cpu")) is None
    assert DATA_SHEET


def test_an_environment_sees_the_packages_of_the_python_that_makes_it(tmp_path: Path) -> None:
    assert "torch>=2.6" in requirements()
    assert not any(line.startswith("torch") for line in requirements(without=("torch",)))
    (tmp_path / "wheels").mkdir()
    python = environment(tmp_path / "made", shared=True, wheels=tmp_path / "wheels")  # nothing is missing
    script = "import sys, numpy; print(sys.prefix == sys.argv[1], numpy.__version__)"
    command = [str(python), "-c", script, str(tmp_path / "made")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["True", np.__version__]
    before = (tmp_path / "made" / ".installed").stat().st_mtime_ns
    environment(tmp_path / "made", shared=True, wheels=tmp_path / "wheels")
    assert (tmp_path / "made" / ".installed").stat().st_mtime_ns == before


def test_the_script_takes_a_dry_run_on_a_machine_without_a_gpu(tmp_path: Path) -> None:
    """With the Python that runs it, which has everything: no environment is made, nothing is fetched."""
    environment, out = tmp_path / "environment", tmp_path / "out"
    command = [sys.executable, "benchmarks/gpu/start.py", "--dry-run", "--environment", str(environment)]
    options = ["--wheels", str(tmp_path), "--parts", "machine", "--out", str(out)]
    done = subprocess.run([*command, *options], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = load(out / "parts" / "machine.json")
    assert found is not None
    assert (found.good, found.dry_run) == (True, True)
    assert not environment.exists()


def test_a_dry_run_fetches_no_pytorch(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(start, "_answer", lambda python, script: None)  # a Python without packages
    monkeypatch.setattr(start, "environment", lambda *arguments, **named: pytest.fail("nothing may be installed"))
    monkeypatch.setattr(sys, "argv", ["start.py", "--dry-run"])
    assert start.main() == 2
    assert "has no PyTorch, and a dry run fetches none" in capsys.readouterr().err


def test_the_script_tells_all_that_may_be_asked(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    helps = []
    for main in (start.main, runs.main):
        monkeypatch.setattr(sys, "argv", ["start.py", "--help"])
        with pytest.raises(SystemExit):
            main()
        helps.append(set(re.findall(r"--[a-z-]+", capsys.readouterr().out.partition("options:")[2])))
    assert helps[0] == helps[1] | {"--environment", "--wheels"}
    assert {"--dry-run", "--out", "--together", "--parts", "--minutes"} <= helps[0]
