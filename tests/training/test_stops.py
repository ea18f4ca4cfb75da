"""However a run is ended, it ends with a checkpoint and a word, and the command that it prints does what is left."""

from __future__ import annotations

import csv
import errno
import fcntl
import io
import os
import pty
import re
import shlex
import signal
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from benchmarks.interruptions import NARROW_SETTINGS
from rich.console import Console
from typer.testing import CliRunner, Result

import tood
from tood.cli import app
from tood.errors import quoted
from tood.stop import StopSignal
from tood.training.checkpoint import read_checkpoint
from tood.training.loop import Trainer
from tood.training.progress import TrainingDisplay
from training.fakes import FakeScores
from training.pictures import coco_folder

ENVIRONMENT = {**os.environ, "PYTHONPATH": str(Path(tood.__file__).parents[1]), "OMP_NUM_THREADS": "1"}
SMALL = ["--model", "tood_tiny", "--size", "32", "--workers", "0", "--batch-size", "2"]
SMALL += ["--device", "cpu", "--precision", "fp32"]
SMALL += [f"--set={setting}" for setting in (*NARROW_SETTINGS, "trackers=[]", "log_every=1")]


# The command, in which the end of a run gets a second SIGHUP: a terminal and its shell both send it.
HANG_UP_AGAIN = """
import os, signal
from tood.cli import main
from tood.training.loop import Trainer
write = Trainer._write_checkpoint
def written(trainer, *arguments, **named):
    if trainer.stop.number:
        os.kill(os.getpid(), signal.SIGHUP)
    return write(trainer, *arguments, **named)
Trainer._write_checkpoint = written
main()
"""


def start(data: Path, out: Path, code: str = "", **how: object) -> subprocess.Popen[str]:
    """A run without end, some steps after its start: of the command, or of code that calls it."""
    command = [sys.executable, *(["-c", code] if code else ["-m", "tood"]), "train"]
    command += ["--data", str(data), "--out", str(out), "--epochs", "100000"]
    run = subprocess.Popen([*command, *SMALL], env=ENVIRONMENT, text=True, **how)  # type: ignore[call-overload]
    wait_for_rows(run, out, 6)
    return run  # type: ignore[no-any-return]


def wait_for_rows(run: subprocess.Popen[str], out: Path, count: int) -> None:
    while not (out / "metrics.csv").is_file() or (out / "metrics.csv").read_text().count("\n") < count:
        assert run.poll() is None
        time.sleep(0.1)


def last_step(out: Path) -> int:
    """The step of the last row that a run wrote."""
    with (out / "metrics.csv").open() as file:
        return int(list(csv.DictReader(file))[-1]["step"])


def ignore_hang_up() -> None:
    """As `nohup` does."""
    signal.signal(signal.SIGHUP, signal.SIG_IGN)


def test_a_hang_up_ends_a_run_like_sigterm(tmp_path: Path) -> None:
    out = tmp_path / "run"
    run = start(coco_folder(tmp_path / "data"), out, HANG_UP_AGAIN, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    run.send_signal(signal.SIGHUP)
    _, errors = run.communicate(timeout=600)
    assert run.returncode == 128 + signal.SIGHUP
    assert f"To go on: tood train --resume --out {quoted(out)}" in errors
    assert "Traceback" not in errors
    assert read_checkpoint(out)["position"]["step"] == last_step(out) > 0


def test_under_nohup_a_hang_up_is_ignored(tmp_path: Path) -> None:
    out = tmp_path / "run"
    with (tmp_path / "nohup.out").open("w") as said:
        run = start(coco_folder(tmp_path / "data"), out, stdout=said, stderr=said, preexec_fn=ignore_hang_up)
        run.send_signal(signal.SIGHUP)
        wait_for_rows(run, out, (out / "metrics.csv").read_text().count("\n") + 9)
        run.send_signal(signal.SIGTERM)
        assert run.wait(timeout=600) == 128 + signal.SIGTERM
    assert "To go on: " in (tmp_path / "nohup.out").read_text()


def test_a_pipe_that_nobody_reads_any_more_ends_a_run_with_a_checkpoint_and_a_word(tmp_path: Path) -> None:
    out = tmp_path / "run"
    run = start(coco_folder(tmp_path / "data"), out, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert run.stdout is not None
    assert run.stderr is not None
    run.stdout.close()  # `tood train | head`
    assert run.wait(timeout=600) == 128 + signal.SIGPIPE
    assert f"To go on: tood train --resume --out {quoted(out)}" in run.stderr.read()
    assert read_checkpoint(out)["position"]["step"] == last_step(out) > 0


@pytest.mark.parametrize("prepare", [None, ignore_hang_up], ids=["with its signal", "without"])
def test_a_terminal_that_is_closed_ends_a_run_with_a_checkpoint(
    tmp_path: Path, prepare: Callable[[], None] | None
) -> None:
    out = tmp_path / "run"
    ours, theirs = pty.openpty()

    def own_terminal() -> None:
        fcntl.ioctl(0, termios.TIOCSCTTY, 0)
        if prepare is not None:
            prepare()

    run = start(
        coco_folder(tmp_path / "data"),
        out,
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
        preexec_fn=own_terminal,
    )
    os.close(theirs)
    os.close(ours)
    assert run.wait(timeout=600) == 128 + signal.SIGHUP
    assert read_checkpoint(out)["position"]["step"] == last_step(out) > 0
    assert (out / "last.safetensors").is_file()


@pytest.mark.parametrize(
    ("signals", "number", "dies"),
    [
        ("HUP HUP HUP", signal.SIGHUP, False),
        ("TERM HUP", signal.SIGTERM, False),
        ("HUP TERM", signal.SIGTERM, False),
        ("HUP INT INT", signal.SIGINT, True),
        ("TERM TERM", signal.SIGTERM, True),
    ],
)
def test_a_hang_up_is_never_the_second_wish(signals: str, number: int, dies: bool) -> None:
    died = False
    with StopSignal() as stop:
        try:
            for name in signals.split():
                os.kill(os.getpid(), getattr(signal, f"SIG{name}"))
        except KeyboardInterrupt:
            died = True
    assert (stop.number, died) == (number, dies)


class Failing(io.StringIO):
    """Nothing can be written, for a reason."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number, self.tries = number, 0

    def write(self, _text: str) -> int:
        self.tries += 1
        raise OSError(self.number, os.strerror(self.number))


@pytest.mark.parametrize(
    ("number", "lost"), [(errno.EPIPE, signal.SIGPIPE), (errno.EIO, signal.SIGHUP), (errno.ENOSPC, 0)]
)
def test_only_a_reader_that_is_gone_ends_a_run(number: int, lost: int) -> None:
    file = Failing(number)
    display = TrainingDisplay(Console(file=file))
    display.say("one")
    display.say("two")
    assert display.lost == lost
    assert file.tries == (1 if lost else 2), "a disk with room again is written to again"
    TrainingDisplay(Console(file=io.StringIO())).say("another")


# --- what is left --------------------------------------------------------------------------------------------------


def command_line(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["train", *arguments])


def advised(text: str) -> list[str]:
    """The arguments of the command that a run's last words name."""
    found = re.search(r"tood train (--resume --out [^`\n]+)", text)
    assert found is not None, text
    return shlex.split(found[1])


def rows(out: Path, column: int) -> list[str]:
    lines = (out / "metrics.csv").read_text().splitlines()[1:]
    return [line.split(",")[1] for line in lines if line.split(",")[column]]


def test_a_stop_within_the_last_step_leaves_the_last_evaluation_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, out = coco_folder(tmp_path / "data"), tmp_path / "a run"
    step = Trainer._step

    def stopped(self: Trainer, group: list, progress: float) -> None:  # type: ignore[type-arg]
        if self.position.step == 5:
            os.kill(os.getpid(), signal.SIGTERM)
        step(self, group, progress)

    monkeypatch.setattr(Trainer, "_step", stopped)
    first = command_line("--data", str(data), "--out", str(out), "--epochs", "2", *SMALL)
    assert first.exit_code == 128 + signal.SIGTERM
    assert read_checkpoint(out)["position"]["step"] == 6
    assert rows(out, -1) == ["3"]
    second = command_line("--resume", "--out", str(out))
    assert second.exit_code == 0, second.output
    assert rows(out, -1) == ["3", "6"]
    assert rows(out, 4) == ["1", "2", "3", "4", "5", "6"]
    assert (out / "best.safetensors").is_file()
    third = command_line("--resume", "--out", str(out))
    assert third.exit_code == 2
    assert "is complete (2 epochs): give more --epochs" in third.stderr


@pytest.mark.parametrize("error", ["of the data", "of the program"])
def test_a_last_evaluation_that_failed_is_what_is_left_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: str
) -> None:
    data, out = coco_folder(tmp_path / "data"), tmp_path / "run"
    picture = data / "val2017/003.png"
    content = picture.read_bytes()
    with monkeypatch.context() as patch:
        if error == "of the data":
            picture.write_bytes(content[:60])
        else:
            patch.setattr("tood.evaluation.evaluate_detections", lambda *_: 1 / 0)
        first = command_line("--data", str(data), "--out", str(out), "--epochs", "1", *SMALL)
    assert first.exit_code == (2 if error == "of the data" else 1)
    assert read_checkpoint(out)["position"]["step"] == 3
    assert not (out / "best.safetensors").exists()
    picture.write_bytes(content)
    second = command_line(*advised(first.output))
    assert second.exit_code == 0, second.output
    assert rows(out, -1) == ["3"]
    assert (out / "best.safetensors").is_file()


def test_an_evaluation_whose_weights_were_not_saved_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, out = coco_folder(tmp_path / "data"), tmp_path / "run"

    def full_disk(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("tood.training.loop.save_weights", full_disk)
        command_line("--data", str(data), "--out", str(out), "--epochs", "1", *SMALL)
    assert not (out / "best.safetensors").exists()
    second = command_line("--resume", "--out", str(out))
    assert second.exit_code == 0, second.output
    assert rows(out, -1) == ["3"]
    assert (out / "best.safetensors").is_file()


def test_the_advice_of_a_run_that_its_patience_ended_makes_it_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tood.evaluation.evaluate_detections", lambda found, truth: FakeScores(0.3))
    data, out = coco_folder(tmp_path / "data"), tmp_path / "run"
    options = ["--epochs", "4", "--lr", "1e-9", "--set", "patience=1"]
    first = command_line("--data", str(data), "--out", str(out), *options, *SMALL)
    assert first.exit_code == 0, first.output
    ended = read_checkpoint(out)["position"]["epoch"]
    assert ended < 4
    second = command_line("--resume", "--out", str(out), "--epochs", "5")
    assert second.exit_code == 2
    assert "patience=1" in second.stderr
    assert "--set patience=null" in second.stderr.replace("\n", " ")
    third = command_line("--resume", "--out", str(out), "--set", "patience=null")
    assert third.exit_code == 0, third.output
    assert read_checkpoint(out)["position"]["epoch"] == 4


# --- options that cannot both count --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options",
    [
        ["--epochs", "5", "--minutes", "3"],
        ["--epochs", "5", "--set", "minutes=3"],
        ["--set", "epochs=5", "--minutes", "3"],
        ["--set", "minutes=3", "--set", "epochs=5"],
    ],
)
def test_epochs_beside_minutes_are_refused(tmp_path: Path, options: list[str]) -> None:
    refused = command_line("--data", str(tmp_path), "--out", str(tmp_path / "run"), *options)
    assert refused.exit_code == 2
    assert "give one of the two" in refused.stderr.replace("\n", " ")
    assert not (tmp_path / "run").exists()


def test_a_rate_of_one_s_own_keeps_the_images_of_a_step(tmp_path: Path) -> None:
    data = coco_folder(tmp_path / "data")
    options = [
        "--data",
        str(data),
        "--recipe",
        "1x",
        "--from",
        "scratch",
        "--epochs",
        "1",
        "--set",
        "data.smallest_side=1",
    ]
    scaled = command_line(*options, *SMALL, "--out", str(tmp_path / "scaled"))
    own = command_line(*options, *SMALL, "--out", str(tmp_path / "own"), "--lr", "0.005")
    assert own.exit_code == scaled.exit_code == 0, own.output
    text = " ".join(own.output.split())
    assert "batch 2 x 8 accumulated = 16 images a step, peak rate 0.005 " in text
    assert "batch 2 x 8 accumulated = 16 images a step, peak rate 0.01 " in " ".join(scaled.output.split())
    assert [read_checkpoint(tmp_path / name)["position"]["step"] for name in ("own", "scaled")] == [1, 1]


def signalled_while_waiting(stop: StopSignal, number: int, never: threading.Event) -> None:
    with stop.waiting(0.3):
        signal.raise_signal(number)
        never.wait(60)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_one_signal_ends_what_is_waited_for_in_vain(number: int) -> None:
    never, threads = threading.Event(), set(threading.enumerate())
    with StopSignal() as stop, stop.waiting(60):
        signal.raise_signal(number)  # which does not raise at once
    assert stop.number == number
    with StopSignal() as stop:
        with pytest.raises(KeyboardInterrupt):
            signalled_while_waiting(stop, number, never)
        assert stop.number == number
        # What comes within its time after the signal is not disturbed, now or later.
        for _ in range(3):
            with stop.waiting(60):
                time.sleep(0.01)
        assert threads >= set(threading.enumerate()), "a timer goes on"
        with pytest.raises(KeyboardInterrupt), stop.waiting(0.1):
            never.wait(60)


def test_patience_that_is_lost_as_the_wait_ends_disturbs_nobody_else(monkeypatch: pytest.MonkeyPatch) -> None:
    reached, kill = threading.Event(), signal.pthread_kill

    def late(thread: int, number: int) -> None:
        reached.set()
        while stop._patience is not None:  # until the wait has ended
            time.sleep(0.001)
        kill(thread, number)

    monkeypatch.setattr(signal, "pthread_kill", late)
    threads = set(threading.enumerate())
    with StopSignal() as stop:
        signal.raise_signal(signal.SIGTERM)
        with stop.waiting(0.0):
            assert reached.wait(60)
    assert threads >= set(threading.enumerate()), "it comes when others listen to its signal again"
