"""A file appears whole or not at all."""

from __future__ import annotations

import errno
import fcntl
import os
import secrets
import stat
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

import tood
from tood.errors import ToodError
from tood.training.checkpoint import read_checkpoint, write_checkpoint
from tood.whole_file import new_temporary, remove_unfinished, scratch_folder, whole_file


def test_it_appears_at_the_end(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "a.txt"
    with whole_file(path) as temporary:
        temporary.write_text("new")
        assert not path.exists()
    assert path.read_text() == "new"
    assert list(path.parent.iterdir()) == [path]


def test_the_old_one_stays_when_something_fails(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old")

    def fill_half() -> None:
        with whole_file(path) as temporary:
            temporary.write_text("ne")
            raise KeyError

    with pytest.raises(KeyError):
        fill_half()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_place_that_cannot_be_written_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ToodError, match="b cannot be written"), whole_file(tmp_path / "file" / "b") as temporary:
        temporary.write_text("")


def test_a_temporary_file_replaces_nobody_s(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = iter(["a" * 12, "a" * 12, "b" * 12])
    monkeypatch.setattr(secrets, "token_hex", lambda _: next(words))
    theirs = new_temporary(tmp_path / "a.txt", ".txt")
    theirs.write_text("theirs")
    with whole_file(tmp_path / "a.txt") as temporary:
        temporary.write_text("mine")
    assert theirs.read_text() == "theirs"
    assert (tmp_path / "a.txt").read_text() == "mine"


def test_threads_that_write_one_file_each_write_their_own(tmp_path: Path) -> None:
    with whole_file(tmp_path / "a.txt") as one, whole_file(tmp_path / "a.txt") as two:
        assert one != two
        one.write_text("1")
        two.write_text("2")
    assert (tmp_path / "a.txt").read_text() == "1", "the last to end"
    assert len(list(tmp_path.iterdir())) == 1


def test_only_what_our_own_dead_processes_left_half_written_is_removed(tmp_path: Path) -> None:
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    word = "0123456789ab"
    ours = [f".tood-{dead.pid}-{word}.tmp", f".tood-{dead.pid}-{word}.tmp.pt"]
    others = [
        ".checkpoint.4711.tmp.pt",
        ".goutputstream.tmp",
        ".tood-running",
        ".tood-notes.tmp",
        f"tood-{dead.pid}-{word}.tmp.pt",
        f".tood-{dead.pid}-{word}.tmpx",
        f".tood-{os.getpid()}-{word}.tmp.pt",  # at work
        ".tood-1-0123456789ab.tmp.pt",  # another person's, at work
    ]
    for name in (*ours, *others):
        (tmp_path / name).write_text("half of it")
    remove_unfinished(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(others)


def test_a_killed_process_leaves_what_is_removed_later(tmp_path: Path) -> None:
    script = "import os, sys; from tood.whole_file import whole_file\n"
    script += "with whole_file(sys.argv[1]) as t: t.write_text('half'); os.kill(os.getpid(), 9)"
    environment = {**os.environ, "PYTHONPATH": str(Path(tood.__file__).parents[1])}
    subprocess.run([sys.executable, "-c", script, str(tmp_path / "a.pt")], env=environment, check=False)
    assert [path.read_text() for path in tmp_path.iterdir()] == ["half"]
    remove_unfinished(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_what_another_machine_s_processes_have_begun_stays_for_a_day(tmp_path: Path) -> None:
    """None of them can be seen here: their numbers are of other processes here, or of none."""
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    new, old = (tmp_path / f".tood-{dead.pid}-{word * 12}.tmp-{'0' * 8}.onnx" for word in "ab")
    own = new_temporary(tmp_path / "x.onnx", ".onnx")
    for path in (new, old):
        path.write_text("half of it")
    for path in (old, own):
        os.utime(path, times=(time.time() - 25 * 3600,) * 2)
    remove_unfinished(tmp_path)
    assert sorted(tmp_path.iterdir()) == sorted([new, own])


def test_a_scratch_folder_vanishes_and_takes_those_of_killed_processes_along(tmp_path: Path) -> None:
    script = "import os; from tood.whole_file import scratch_folder\n"
    script += "with scratch_folder() as t: (t / 'a').write_text('half'); os.kill(os.getpid(), 9)"
    environment = {**os.environ, "PYTHONPATH": str(Path(tood.__file__).parents[1]), "TMPDIR": str(tmp_path)}
    subprocess.run([sys.executable, "-c", script], env=environment, check=False)
    (left,) = tmp_path.iterdir()
    assert (left / "a").read_text() == "half"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tempfile, "tempdir", str(tmp_path))
        with scratch_folder() as outer, scratch_folder() as inner:
            (inner / "b").write_text("")
            assert sorted(tmp_path.iterdir()) == sorted([outer, inner])
    assert list(tmp_path.iterdir()) == []


def test_a_system_that_flushes_only_what_was_opened_to_be_written_is_obeyed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As Windows does, for files; folders are not flushed there at all."""
    flush, flushed = os.fsync, []

    def strict(descriptor: int) -> None:
        if stat.S_ISREG(os.fstat(descriptor).st_mode):
            if fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDONLY:
                raise OSError(errno.EBADF, "Bad file descriptor")
            flushed.append(descriptor)
        flush(descriptor)

    monkeypatch.setattr(os, "fsync", strict)
    with whole_file(tmp_path / "a.txt", durable=True) as temporary:
        temporary.write_text("new")
    assert (tmp_path / "a.txt").read_text() == "new"
    write_checkpoint(tmp_path, {"step": 1})
    assert read_checkpoint(tmp_path)["step"] == 1
    assert len(flushed) == 2
