"""The batcher alone, over a real detector."""

from __future__ import annotations

import threading
import time
from concurrent.futures import wait

import pytest
import torch

from bright_square import BrightRectangle, picture
from tood import Detector
from tood.errors import ToodError
from tood.serving.batcher import Batcher, Computed, Job
from tood.serving.config import BatchConfig
from tood.serving.warm_up import warm_up


class Slow(BrightRectangle):
    """Takes its time, and remembers the shapes that it was given."""

    def __init__(self, seconds: float = 0.0) -> None:
        super().__init__()
        self.seconds, self.shapes = seconds, []

    def forward(self, images: torch.Tensor):  # type: ignore[no-untyped-def]
        self.shapes.append(tuple(images.shape))
        time.sleep(self.seconds)
        return super().forward(images)


class Held(BrightRectangle):
    """Computes when it is let."""

    def __init__(self) -> None:
        super().__init__()
        self.released = threading.Event()

    def forward(self, images: torch.Tensor):  # type: ignore[no-untyped-def]
        self.released.wait(60)
        return super().forward(images)


def detector_of(network: BrightRectangle) -> Detector:
    return Detector.from_model(network, ["small", "bright"], "cpu")


def jobs_of(detector: Detector, count: int, height: int = 40) -> list[Job]:
    return [Job(detector, detector.prepare(picture(height, 60, (2 * i, 1, 2 * i + 5, 9)))) for i in range(count)]


def test_every_batch_has_the_same_size_and_each_picture_its_own_boxes() -> None:
    network = Slow(0.02)
    detector = detector_of(network)
    batches: list[Computed] = []
    batcher = Batcher(BatchConfig(lanes=2, size=4, wait=0.02), batches.append)
    jobs = jobs_of(detector, 11) + jobs_of(detector, 3, height=60)
    for job in jobs:
        batcher.put(job)
    wait([job.result for job in jobs], 20)
    batcher.close()
    assert {shape[0] for shape in network.shapes} == {4}
    assert sum(one.batch for one in batches) == 14
    assert len(network.shapes) < 14
    for number, job in enumerate(jobs):
        box = job.result.result().found.boxes[0]
        assert box[0].item() == pytest.approx(2 * (number if number < 11 else number - 11), abs=0.9)


def test_closing_finishes_what_was_taken() -> None:
    detector = detector_of(Slow(0.05))
    batcher = Batcher(BatchConfig(lanes=1, size=1))
    jobs = jobs_of(detector, 6)
    for job in jobs:
        batcher.put(job)
    batcher.close()
    assert all(job.result.done() for job in jobs)
    with pytest.raises(RuntimeError):
        batcher.put(jobs[0])


def test_who_hangs_up_is_left_out_and_an_error_ends_no_lane() -> None:
    network = Slow(0.05)
    detector = detector_of(network)
    batcher = Batcher(BatchConfig(lanes=1, size=1))
    jobs = jobs_of(detector, 4)
    jobs[2].result.cancel()
    broken = Job(detector, jobs[0].image)
    object.__setattr__(broken, "image", None)
    for job in (*jobs[:3], broken, jobs[3]):
        batcher.put(job)
    assert len(jobs[3].result.result(20).found) > 0
    assert broken.result.exception(20) is not None
    batcher.close()
    assert len(network.shapes) == 3


def test_many_threads_put_and_nothing_is_lost() -> None:
    detector = detector_of(BrightRectangle())
    batcher = Batcher(BatchConfig(lanes=3, size=2, wait=0.001))
    groups = [jobs_of(detector, 20, 40 + 20 * (i % 2)) for i in range(4)]
    threads = [threading.Thread(target=lambda group=group: [batcher.put(job) for job in group]) for group in groups]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for group in groups:
        for number, job in enumerate(group):
            assert job.result.result(30).found.boxes[0, 0].item() == pytest.approx(2 * number, abs=0.9)
    batcher.close()


def test_a_detector_whose_boxes_depend_on_the_place_in_a_batch_is_refused() -> None:
    class Moving(BrightRectangle):
        def forward(self, images: torch.Tensor):  # type: ignore[no-untyped-def]
            found = super().forward(images)
            found.boxes[1:] += 0.01
            return found

    warm_up(detector_of(BrightRectangle()), 4)
    warm_up(detector_of(Moving()), 1)
    with pytest.raises(ToodError, match="--batch-size 1"):
        warm_up(detector_of(Moving()), 4)


def test_lanes_that_wait_for_more_do_not_keep_each_other_busy(monkeypatch: pytest.MonkeyPatch) -> None:
    detector = detector_of(BrightRectangle())
    batcher = Batcher(BatchConfig(lanes=2, size=4, wait=0.5))
    turns, take = [], batcher._take_like

    def counted(batch: list[Job]) -> None:
        turns.append(len(batch))
        take(batch)

    monkeypatch.setattr(batcher, "_take_like", counted)
    jobs = [job for height in (40, 60, 90) for job in jobs_of(detector, 1, height)]
    for job in jobs:
        batcher.put(job)
    wait([job.result for job in jobs], 60)
    batcher.close()
    assert all(job.result.done() for job in jobs)
    assert len(turns) < 50, "they look when there is news, not all the time"


def test_pictures_that_wait_are_bounded_in_bytes_even_those_that_nobody_wants() -> None:
    network = Held()
    jobs = jobs_of(detector_of(network), 3)
    batcher = Batcher(BatchConfig(), most_bytes=2 * jobs[0].size)
    jobs[1].result.cancel()
    for job in jobs[:2]:
        batcher.put(job)
    before: list[bool] = []

    def put() -> None:
        batcher.put(jobs[2])
        before.append(jobs[0].result.done())

    putting = threading.Thread(target=put)
    putting.start()
    putting.join(0.1)
    assert not before, "there is no place yet"
    network.released.set()
    putting.join(60)
    assert before == [True], "it was put before there was a place"
    batcher.close()
    assert jobs[2].result.done()
