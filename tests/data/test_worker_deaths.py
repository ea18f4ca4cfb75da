"""Loading processes that are killed: a sentence, and nothing that is printed and lost."""

from __future__ import annotations

import gc
import os
import signal
import sys
from collections.abc import Iterator

import pytest

from data.loaders import train_loader
from data.test_loading import KEEP_RATIO
from tood.data import WorkerDeaths, WorkerDiedError
from tood.data.dataset import DetectionDataset
from tood.data.loading import Batch
from tood.errors import ToodError

ADVICE = "take fewer of them"


def kill(loader: object) -> None:
    os.kill(loader._iterator._workers[0].pid, signal.SIGKILL)  # type: ignore[attr-defined]


@pytest.fixture
def lost(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[object]]:
    """Errors that Python printed and went on from."""
    gc.collect()  # those of tests before are not of this one
    found: list[object] = []
    monkeypatch.setattr(sys, "unraisablehook", found.append)
    yield found
    gc.collect()
    assert not found


def test_a_killed_worker_is_one_sentence(dataset: DetectionDataset, lost: list[object]) -> None:
    loader = train_loader(dataset, KEEP_RATIO, 1, 1)
    with WorkerDeaths(ADVICE) as deaths:
        batches = deaths.batches(loader)
        next(batches)
        kill(loader)
        with pytest.raises(WorkerDiedError) as raised:
            list(batches)
    assert "memory that ran out" in str(raised.value)
    assert str(raised.value).endswith(ADVICE)
    assert "\n" not in str(raised.value)


def test_a_worker_that_dies_elsewhere_is_told_of_when_a_batch_is_asked_for(
    dataset: DetectionDataset, lost: list[object]
) -> None:
    trains, evaluates = (train_loader(dataset, KEEP_RATIO, 1, 1) for _ in range(2))
    before = signal.getsignal(signal.SIGCHLD)
    with WorkerDeaths(ADVICE) as deaths:
        batches = deaths.batches(trains)
        next(batches)
        with WorkerDeaths(ADVICE) as inner:
            assert len(list(inner.batches(evaluates))) == len(evaluates)
            kill(trains)
            del evaluates  # waits for its process
            gc.collect()
        with pytest.raises(WorkerDiedError):
            next(batches)
    # PyTorch's own, which stays from its first loader on, has replaced the default.
    assert signal.getsignal(signal.SIGCHLD).__module__ == "torch.utils.data._utils.signal_handling"
    assert before in (signal.SIG_DFL, signal.getsignal(signal.SIGCHLD))


def test_a_worker_of_an_evaluation_that_dies_within_training_is_told_of_by_both(
    dataset: DetectionDataset, lost: list[object]
) -> None:
    evaluates = train_loader(dataset, KEEP_RATIO, 1, 1)
    with WorkerDeaths(ADVICE) as deaths:
        with WorkerDeaths(ADVICE) as inner:
            batches = inner.batches(evaluates)
            next(batches)
            kill(evaluates)
            with pytest.raises(WorkerDiedError):
                list(batches)
        with pytest.raises(WorkerDiedError):
            list(deaths.batches([]))


def test_entered_twice_one_after_the_other_ends_too(dataset: DetectionDataset) -> None:
    first, second = WorkerDeaths(ADVICE), WorkerDeaths(ADVICE)
    with first:
        list(first.batches(train_loader(dataset, KEEP_RATIO, 1, 1)))
        with second:
            list(first.batches(train_loader(dataset, KEEP_RATIO, 1, 1)))
            os.kill(os.getpid(), signal.SIGCHLD)
    list(first.batches(train_loader(dataset, KEEP_RATIO, 1, 0)))


def test_a_pin_memory_thread_that_ends_is_told_of_too() -> None:
    def broken() -> Iterator[Batch]:
        yield from ()
        raise RuntimeError("Pin memory thread exited unexpectedly")

    with WorkerDeaths(ADVICE) as deaths, pytest.raises(WorkerDiedError):
        list(deaths.batches(broken()))


def test_other_errors_stay_what_they_are() -> None:
    def broken(error: Exception) -> Iterator[Batch]:
        yield from ()
        raise error

    caused = ToodError("x")
    caused.__cause__ = OSError("y")
    for error in (RuntimeError("size mismatch"), caused, OSError(28, "No space left on device")):
        with WorkerDeaths(ADVICE) as deaths, pytest.raises(type(error)) as raised:
            list(deaths.batches(broken(error)))
        assert raised.value is error
        assert raised.value.__cause__ is not error
