"""Loading processes that are killed: a sentence, and nothing that is printed and lost."""

from __future__ import annotations

import gc
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from data.test_loading import KEEP_RATIO, make_dataset
from tood.data import WorkerDeaths, WorkerDiedError, train_loader
from tood.data.dataset import DetectionDataset
from tood.data.loading import Batch
from tood.errors import ToodError


@pytest.fixture
def dataset(tmp_path: Path) -> DetectionDataset:
    (tmp_path / "pictures").mkdir()
    return make_dataset(tmp_path / "pictures", [(60, 80), (80, 60), (48, 90), (50, 70), (90, 45), (64, 64), (33, 77)])


def kill(loader: object) -> None:
    os.kill(loader._iterator._workers[0].pid, signal.SIGKILL)  # type: ignore[attr-defined]


@pytest.fixture
def lost(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[object]]:
    """Errors that Python printed and went on from."""
    found: list[object] = []
    monkeypatch.setattr(sys, "unraisablehook", found.append)
    yield found
    gc.collect()
    assert not found


def test_a_killed_worker_is_one_sentence(dataset: DetectionDataset, lost: list[object]) -> None:
    loader = train_loader(dataset, KEEP_RATIO, 1, 1)
    with WorkerDeaths() as deaths:
        batches = deaths.batches(loader)
        next(batches)
        kill(loader)
        with pytest.raises(WorkerDiedError) as raised:
            list(batches)
    assert "memory that ran out" in str(raised.value)
    assert "data.workers" in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_worker_that_dies_elsewhere_is_told_of_when_a_batch_is_asked_for(
    dataset: DetectionDataset, lost: list[object]
) -> None:
    trains, evaluates = (train_loader(dataset, KEEP_RATIO, 1, 1) for _ in range(2))
    before = signal.getsignal(signal.SIGCHLD)
    with WorkerDeaths() as deaths:
        batches = deaths.batches(trains)
        next(batches)
        with WorkerDeaths() as inner:
            assert len(list(inner.batches(evaluates))) == len(evaluates)
            kill(trains)
            del evaluates  # waits for its process
            gc.collect()
        with pytest.raises(WorkerDiedError):
            next(batches)
    assert signal.getsignal(signal.SIGCHLD).__module__ == "torch.utils.data._utils.signal_handling"
    assert before in (signal.SIG_DFL, signal.getsignal(signal.SIGCHLD))


def test_other_errors_stay_what_they_are() -> None:
    def broken(error: Exception) -> Iterator[Batch]:
        yield from ()
        raise error

    for error in (RuntimeError("size mismatch"), ToodError("x"), OSError(28, "No space left on device")):
        with WorkerDeaths() as deaths, pytest.raises(type(error)) as raised:
            list(deaths.batches(broken(error)))
        assert raised.value is error
