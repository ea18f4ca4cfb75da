"""A run's folder: one run's alone, whoever else starts one, and never one that holds somebody else's files."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from multiprocessing.connection import Connection
from pathlib import Path

import pytest
from benchmarks.interruptions import NARROW_SETTINGS
from rich.console import Console
from typer.testing import CliRunner

import tood
from tood.cli import app
from tood.cli.demo import run_demo
from tood.data.digits import DigitsConfig
from tood.data.transforms import AugmentConfig, CanvasStep, FlipStep
from tood.errors import ToodError
from tood.training import CONFIG, RunConfig, claimed_folder, run_folders, train
from tood.training.folder import LOCK
from training.fakes import tiny_run
from training.pictures import coco_folder

FORK = multiprocessing.get_context("fork")
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(Path(tood.__file__).parents[1]), "OMP_NUM_THREADS": "1"}
# Pairs of whole trainings started at once; 50 takes half an hour.
REAL_PAIRS = int(os.environ.get("TOOD_REAL_PAIRS", "1"))


def small_run(data: Path, out: Path | None) -> RunConfig:
    run = tiny_run(out or Path())
    small = AugmentConfig((CanvasStep(32), FlipStep()))
    return replace(run, data=replace(run.data, path=str(data), workers=0), augment=small, epochs=1, out=out)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


# --- two at once ---------------------------------------------------------------------------------------------------


def claim(parent: Path, gate: object, tell: Connection) -> None:
    gate.wait()  # type: ignore[attr-defined]
    with claimed_folder(None, run_folders("x", parent)) as folder:
        (folder.path / "mine").write_text(str(os.getpid()))
        tell.send(folder.path.name)


def test_50_pairs_started_at_once_get_100_folders(tmp_path: Path) -> None:
    names = []
    for _ in range(50):
        gate = FORK.Barrier(2)
        ends = [FORK.Pipe(duplex=False) for _ in range(2)]
        processes = [FORK.Process(target=claim, args=(tmp_path / "runs", gate, tell)) for _, tell in ends]
        for process in processes:
            process.start()
        names += [hear.recv() for hear, _ in ends]
        for process in processes:
            process.join()
    assert sorted(names) == sorted(f"x-{number}" for number in range(1, 101))
    assert len({path.read_text() for path in (tmp_path / "runs").glob("*/mine")}) == 100


def test_pairs_of_trainings_started_at_once_keep_their_runs(tmp_path: Path) -> None:
    data = coco_folder(tmp_path / "data")
    command = [sys.executable, "-m", "tood", "train", "--data", str(data), "--model", "tood_tiny", "--size", "32"]
    command += ["--workers", "0", "--batch-size", "2", "--epochs", "1", "--device", "cpu", "--set", "trackers=[]"]
    command += [f"--set={setting}" for setting in NARROW_SETTINGS]
    for _ in range(REAL_PAIRS):
        pair = [subprocess.Popen(command, cwd=tmp_path, env=ENVIRONMENT, stdout=subprocess.PIPE) for _ in range(2)]
        for run in pair:
            run.communicate()
        assert [run.returncode for run in pair] == [0, 0]
    folders = list((tmp_path / "runs").iterdir())
    assert len(folders) == 2 * REAL_PAIRS
    for folder in folders:
        assert {path.name for path in folder.iterdir()} == {
            "best.safetensors",
            "checkpoint.pt",
            "config.yaml",
            "last.safetensors",
            "metrics.csv",
        }


def test_two_demos_get_two_folders(tmp_path: Path) -> None:
    folders = lambda: run_folders("demo", tmp_path, unnumbered=True)  # noqa: E731
    with claimed_folder(None, folders()) as one, claimed_folder(None, folders()) as two:
        assert (one.path.name, two.path.name) == ("demo", "demo-2")


@pytest.mark.parametrize("resume", [(), ("--resume",), ("--resume", "auto")])
def test_a_folder_that_is_being_written_to_is_refused_in_one_sentence(tmp_path: Path, resume: tuple[str, ...]) -> None:
    data, out = coco_folder(tmp_path / "data"), tmp_path / "run"
    if resume:
        train(small_run(data, out))
    before = contents(out) if resume else {}
    given = [] if resume == ("--resume",) else ["--model", "tood_tiny", "--data", str(data)]
    with claimed_folder(out, (), "auto"):
        refused = CliRunner().invoke(app, ["train", "--out", str(out), *given, *resume])
    assert refused.exit_code == 2
    assert f"a run is being written to {out} by process {os.getpid()} on " in refused.stderr.replace("\n", " ")
    assert refused.stderr.count("tood: ") == 1
    assert contents(out) == before if resume else not out.exists() or contents(out) == before


def hold(out: Path, tell: Connection) -> None:
    """As a trainer with a loading process, which it forks."""
    with claimed_folder(out, (), "auto"):
        loader = FORK.Process(target=time.sleep, args=(600,))
        loader.start()
        tell.send(loader.pid)
        time.sleep(600)


def test_the_lock_of_a_killed_process_does_not_block_though_its_loader_lives(tmp_path: Path) -> None:
    hear, tell = FORK.Pipe(duplex=False)
    process = FORK.Process(target=hold, args=(tmp_path / "run", tell))
    process.start()
    loader = hear.recv()
    try:
        with pytest.raises(ToodError, match=f"by process {process.pid} on "), claimed_folder(tmp_path / "run", ()):
            pass
        assert process.pid is not None
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        os.kill(loader, 0)  # it is there
        assert (tmp_path / "run" / LOCK).exists()
        with claimed_folder(tmp_path / "run", (), "auto") as folder:
            assert not folder.resumes
        assert not (tmp_path / "run" / LOCK).exists()
    finally:
        os.kill(loader, signal.SIGKILL)


def take_turns(out: Path, log: Path, rounds: int) -> None:
    for _ in range(rounds):
        with suppress(ToodError), claimed_folder(out, (), "auto"):  # it is being written to by another
            inside = os.open(log, os.O_CREAT | os.O_EXCL)  # fails where another is inside
            os.close(inside)
            log.unlink()


def test_never_are_two_inside_though_the_lock_s_file_comes_and_goes(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    processes = [FORK.Process(target=take_turns, args=(tmp_path / "run", tmp_path / "inside", 300)) for _ in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0, 0]


# --- not ours ------------------------------------------------------------------------------------------------------

STRANGE = [
    "config.yaml",
    "metrics.csv",
    "best.safetensors",
    "last.safetensors",
    "checkpoint.pt",
    "checkpoint-000004.pt",
    "tensorboard/events",
]


@pytest.mark.parametrize("resume", [False, "auto"])
@pytest.mark.parametrize("name", STRANGE)
def test_somebody_else_s_files_are_never_replaced(tmp_path: Path, name: str, resume: bool) -> None:
    out = tmp_path / "theirs"
    (out / name).parent.mkdir(parents=True)
    (out / name).write_text("model: resnet\n")
    (out / "notes.md").write_text("mine")
    before = contents(out)
    with pytest.raises(ToodError, match="move it away") as caught:
        train(small_run(coco_folder(tmp_path / "data"), out), resume)
    assert name.split("/")[0] in str(caught.value)
    assert contents(out) == before


def test_a_link_that_leads_nowhere_is_somebody_s_too(tmp_path: Path) -> None:
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs/best.safetensors").symlink_to("/nowhere/else")
    with pytest.raises(ToodError, match=r"best\.safetensors"), claimed_folder(tmp_path / "theirs", ()):
        pass


@pytest.mark.parametrize("text", ["", "epochs: 3\n", "train: {}\n"])
def test_another_program_s_configuration_is_no_run_to_resume(tmp_path: Path, text: str) -> None:
    (tmp_path / CONFIG).write_text(text)
    with pytest.raises(ToodError, match="not of a run of tood"):
        train(small_run(tmp_path, tmp_path), resume=True)
    assert contents(tmp_path) == {CONFIG: text.encode()}


def test_a_run_whose_configuration_was_edited_without_its_first_line_is_still_one(tmp_path: Path) -> None:
    data, out = coco_folder(tmp_path / "data"), tmp_path / "run"
    train(small_run(data, out))
    text = (out / CONFIG).read_text()
    assert text.startswith("# tood train --config ")
    (out / CONFIG).write_text(text.partition("\n")[2])
    assert train(replace(small_run(data, out), epochs=2), resume=True).steps == 6


def test_files_that_are_in_nobody_s_way_stay(tmp_path: Path) -> None:
    out = tmp_path / "run"
    out.mkdir()
    (out / "notes.md").write_text("mine")
    (out / ".half.tmp").write_text("theirs")
    data = coco_folder(tmp_path / "data")
    train(small_run(data, out))
    train(replace(small_run(data, out), epochs=2), resume=True)
    assert (out / "notes.md").read_text() == "mine"
    assert (out / ".half.tmp").read_text() == "theirs"


@pytest.mark.parametrize("name", ["digits/mine.png", "detections.png", "curves.png", "best.safetensors"])
def test_the_demo_replaces_nothing_either(tmp_path: Path, name: str) -> None:
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text("mine")
    with pytest.raises(ToodError, match=name.partition("/")[0]):
        run_demo(tmp_path, 0.01, DigitsConfig(train=4, val=1, test=1), Console(quiet=True))
    assert contents(tmp_path) == {name: b"mine"}


# --- torchrun's attempts -------------------------------------------------------------------------------------------


def attempt(monkeypatch: pytest.MonkeyPatch, number: int, run: str = "none", logs: str = "/tmp/none_x") -> None:
    """As torchrun starts its processes for the first time (0) or again."""
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", str(number))
    monkeypatch.setenv("TORCHELASTIC_MAX_RESTARTS", "3")
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", run)
    monkeypatch.setenv("TORCHELASTIC_ERROR_FILE", f"{logs}/attempt_{number}/0/error.json" if logs else "")


@pytest.mark.parametrize("older", ["by hand", "of an earlier torchrun", "of an earlier torchrun with the same id"])
def test_no_attempt_of_torchrun_goes_on_with_another_s_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, older: str
) -> None:
    data, out = coco_folder(tmp_path / "data"), tmp_path / "run"
    if older != "by hand":
        attempt(monkeypatch, 0, "7" if "same id" in older else "none", "/tmp/7_older")
    train(small_run(data, out))
    before = contents(out)
    for number in range(3):
        attempt(monkeypatch, number, "7" if "same id" in older else "none", "/tmp/7_newer")
        with pytest.raises(ToodError, match="already holds a run"):
            train(replace(small_run(data, out), epochs=2))
        assert contents(out) == before


@pytest.mark.parametrize(("run", "logs"), [("none", "/tmp/none_x"), ("7", "/tmp/7_x"), ("7", "")])
def test_the_next_attempt_of_torchrun_goes_on_with_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run: str, logs: str
) -> None:
    data, out = coco_folder(tmp_path / "data"), tmp_path / "run"
    attempt(monkeypatch, 0, run, logs)
    train(small_run(data, out))
    attempt(monkeypatch, 1, run, logs)
    assert train(replace(small_run(data, out), epochs=2)).steps == 6
    monkeypatch.setattr("socket.gethostname", lambda: "elsewhere")  # the main process is on another machine now
    attempt(monkeypatch, 2, run, "/tmp/another" if logs else "")
    if run == "none":
        with pytest.raises(ToodError, match="already holds a run"):
            train(replace(small_run(data, out), epochs=3))
    else:
        assert train(replace(small_run(data, out), epochs=3)).steps == 9


def test_an_attempt_that_came_to_nothing_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    attempt(monkeypatch, 0)
    with pytest.raises(ToodError):
        train(small_run(tmp_path / "no data", tmp_path / "run"))
    assert list(tmp_path.iterdir()) == []


# --- given back ----------------------------------------------------------------------------------------------------


def refuse() -> None:
    raise ToodError("there is no box to learn from")


def interrupt() -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize("end", [refuse, interrupt])
@pytest.mark.parametrize("named", [True, False])
def test_what_was_made_goes_again_where_nothing_came_of_it(
    tmp_path: Path, end: Callable[[], None], named: bool
) -> None:
    (tmp_path / "here").mkdir()
    parent = tmp_path / "here/new/runs"

    def fails() -> None:
        with claimed_folder(parent / "x" if named else None, run_folders("x", parent)) as folder:
            assert folder.path.is_dir()
            end()

    with pytest.raises((ToodError, KeyboardInterrupt)):
        fails()
    assert list((tmp_path / "here").iterdir()) == []


def test_an_empty_folder_of_the_person_s_stays(tmp_path: Path) -> None:
    with pytest.raises(ToodError, match="no box"), claimed_folder(tmp_path, ()):
        refuse()
    assert list(tmp_path.iterdir()) == []


def test_what_was_written_stays_though_the_run_fails(tmp_path: Path) -> None:
    def fails() -> None:
        with claimed_folder(tmp_path / "run", ()) as folder:
            (folder.path / "checkpoint.pt").write_text("3 steps")
            refuse()

    with pytest.raises(ToodError, match="no box"):
        fails()
    assert contents(tmp_path) == {"run/checkpoint.pt": b"3 steps"}


def test_a_folder_that_cannot_be_written_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(ToodError, match=r"cannot be written: .*give another --out"),
        claimed_folder(tmp_path / "file/run", ()),
    ):
        pass
