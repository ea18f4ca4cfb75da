"""Locks on folders: one handler for all of them, and none in a forked process."""

from __future__ import annotations

import multiprocessing
import os
from multiprocessing.synchronize import Event
from pathlib import Path

import pytest

from tood.folder_lock import FolderLock

FORK = multiprocessing.get_context("fork")


def test_many_locks_leave_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    handlers: list[object] = []
    monkeypatch.setattr(os, "register_at_fork", lambda **told: handlers.append(told))
    opened = len(os.listdir("/proc/self/fd"))  # noqa: PTH208
    for number in range(100):
        lock = FolderLock(tmp_path, f".{number % 3}")
        assert lock.acquire()
        assert not FolderLock(tmp_path, f".{number % 3}").acquire()
        lock.release()
    assert handlers == []
    assert list(tmp_path.iterdir()) == []
    assert len(os.listdir("/proc/self/fd")) == opened  # noqa: PTH208


def test_locks_of_other_names_do_not_concern_each_other(tmp_path: Path) -> None:
    one, two = FolderLock(tmp_path, ".one"), FolderLock(tmp_path, ".two")
    assert one.acquire()
    assert two.acquire()
    one.release()
    assert not FolderLock(tmp_path, ".two").acquire()
    two.release()


def _wait(begun: Event, gate: Event) -> None:
    begun.set()
    gate.wait(60)


def test_a_forked_process_holds_none_of_its_parent_s_locks(tmp_path: Path) -> None:
    locks = [FolderLock(tmp_path, f".{number}") for number in range(5)]
    assert all(lock.acquire() for lock in locks)
    begun, gate = FORK.Event(), FORK.Event()
    child = FORK.Process(target=_wait, args=(begun, gate))
    child.start()
    try:
        assert begun.wait(60)
        for lock in locks:
            assert lock._descriptor is not None
            os.close(lock._descriptor)  # as the end of the parent would
            lock._descriptor = None
        again = [FolderLock(tmp_path, f".{number}") for number in range(5)]
        assert all(lock.acquire() for lock in again)
        for lock in again:
            lock.release()
    finally:
        gate.set()
        child.join()
