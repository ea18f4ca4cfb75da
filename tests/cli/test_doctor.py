"""`tood doctor` on this machine, and on others as Linux describes them."""

from __future__ import annotations

import importlib.metadata
import json
import os
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from tood.cli import app
from tood.cli.doctor import Finding, _extras, examine, memory_bytes, requirements, summary
from tood.machine import processor_flags, usable_cores


def test_it_tells_what_this_machine_has() -> None:
    shown = CliRunner().invoke(app, ["doctor"])
    assert shown.exit_code == 0, shown.output
    for words in (torch.__version__, f"{usable_cores()} of {os.cpu_count()} cores", "GiB free"):
        assert words in shown.output
    found = json.loads(CliRunner().invoke(app, ["doctor", "--json"]).output)
    subjects = [one["subject"] for one in found]
    assert len(subjects) == len(set(subjects))
    assert {"tood", "torch", "processor", "precision", "cores", "load", "allocator", "GPU", "cache"} <= set(subjects)
    assert all(one["remedy"] for one in found if one["state"] != "ok")


def test_threads_that_the_environment_takes_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tood.machine.usable_cores", lambda: 8)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    found = next(one for one in examine() if one.subject == "cores")
    assert found.state == "faster"
    assert "unset OMP_NUM_THREADS" in found.remedy
    monkeypatch.setattr(torch, "get_num_threads", lambda: 64)
    assert next(one for one in examine() if one.subject == "cores").remedy == "--threads 8"


def test_a_package_that_every_command_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = ["torch>=2.6", "numpy>=99", "ray>=2.40; extra == 'ray'", "no-such-package>=1; extra == 'ray'"]
    monkeypatch.setattr("importlib.metadata.requires", lambda _: [*lines, "tood[ray]; extra == 'dev'"])
    assert [one.fits for one in requirements()][:2] == [True, False]
    shown = CliRunner().invoke(app, ["doctor"])
    assert shown.exit_code == 2
    assert "pip install 'numpy>=99'" in shown.output
    monkeypatch.setattr("importlib.metadata.requires", lambda _: [lines[0], *lines[2:]])
    found = next(one for one in examine() if one.subject == "extra ray")
    assert (found.state, found.remedy) == ("missing", "pip install 'tood[ray]'")
    assert "no-such-package no" in found.found


def test_metadata_that_is_older_than_the_code_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "tood-0.0.1.dist-info"
    folder.mkdir()
    every = ("export", "openvino", "serve", "video", "track", "big", "ray", "wandb", "mlflow")
    monkeypatch.syspath_prepend(str(tmp_path))
    for names, told in ((every, ""), (every[-2:], ", ".join(every[:-2]))):
        lines = [f'Requires-Dist: numpy>=1; extra == "{name}"' for name in names]
        head = ["Metadata-Version: 2.1", "Name: tood", "Version: 0.0.1", "Requires-Dist: numpy>=1"]
        (folder / "METADATA").write_text("\n".join([*head, *lines]))
        importlib.invalidate_caches()
        found = [one for one in _extras() if one.subject == "installation"]
        assert [one.found.endswith(f"no packages of the extras {told}") for one in found] == [True] * bool(told)
        assert all("install tood again" in one.remedy for one in found)


def test_trackers_is_looked_for_though_no_extra_has_it(monkeypatch: pytest.MonkeyPatch) -> None:
    have = importlib.metadata.version

    def without(name: str) -> str:
        if name == "trackers":
            raise importlib.metadata.PackageNotFoundError(name)
        return have(name)

    monkeypatch.setattr("importlib.metadata.requires", lambda _: ["numpy>=1; extra == 'track'"])
    monkeypatch.setattr("importlib.metadata.version", without)
    found = {one.subject: one for one in _extras()}
    assert found["extra track"].state == "ok"
    assert (found["trackers"].state, found["trackers"].remedy) == ("missing", "pip install --no-deps trackers")


def test_other_processors(tmp_path: Path) -> None:
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text("processor : 0\nmodel name : Some CPU\nflags : fpu avx2 amx_bf16\n\nprocessor : 1\nflags : x\n")
    assert processor_flags(cpuinfo) == ("Some CPU", frozenset({"fpu", "avx2", "amx_bf16"}))
    cpuinfo.write_text("processor : 0\nFeatures : fp asimd bf16\n")
    assert "bf16" in processor_flags(cpuinfo)[1]
    assert processor_flags(tmp_path / "no")[1] == frozenset()
    meminfo = tmp_path / "meminfo"
    meminfo.write_text("MemTotal:  2097152 kB\nMemAvailable:  1048576 kB\nHugePages_Total: 0\n")
    assert memory_bytes(meminfo) == (2 * 2**30, 2**30)
    assert memory_bytes(tmp_path / "no") is None


def test_the_last_line() -> None:
    assert summary([Finding("a", "ok", "")]) == "all well"
    told = summary([Finding("a", "faster", "", "x"), Finding("b", "missing", "", "x"), Finding("c", "broken", "", "x")])
    assert told == "1 broken; 1 missing, which only some commands need; 1 would make it faster"
