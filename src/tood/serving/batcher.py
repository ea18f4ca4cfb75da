"""Pictures of equal shape, computed in batches by a few threads; what one gets never depends on its neighbours.

A network's kernels are chosen by the shape of the whole batch, and other kernels sum in another order. On one CPU the
boxes of a TOOD were equal alone and in batches of 2 to 32, its scores to 6e-8 (fp32) and 1e-9 (bf16); but nothing
promises that of other machines and networks. So each batch is of one size, always, and its free places are filled with
blanks. On a CPU a batch of one picture a core is as fast as a larger one, and is the default.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field

import numpy as np

from tood.inference import Detector, PreparedImage
from tood.serving.config import BatchConfig, Limits
from tood.structures import Detections


@dataclass(frozen=True)
class Computed:
    """What a picture got.

    Attributes:
        found: its detections.
        waited, computed: seconds in the queue, and in the network with its batch.
        batch: pictures that it was computed with, itself among them.
    """

    found: Detections
    waited: float
    computed: float
    batch: int


@dataclass(frozen=True, eq=False)
class Job:
    """A picture that waits to be computed by the detector that prepared it."""

    detector: Detector
    image: PreparedImage
    result: Future[Computed] = field(default_factory=Future)
    since: float = field(default_factory=time.monotonic)
    size: int = field(init=False)  # bytes of its picture

    def __post_init__(self) -> None:
        object.__setattr__(self, "size", self.image.pixels.nbytes)

    @property
    def kind(self) -> tuple[int, tuple[int, int]]:
        """What pictures of one batch have in common."""
        return id(self.detector), self.image.padded


class Batcher:
    """Threads that take jobs of one kind together, the oldest first.

    Args:
        config: how many threads, how large a batch.
        watch: called with each batch's result, for metrics.
        most_bytes: of pictures that wait or are computed; a single one may be larger.
    """

    def __init__(
        self,
        config: BatchConfig,
        watch: Callable[[Computed], None] = lambda _: None,
        most_bytes: int = Limits.held_bytes,
    ) -> None:
        self.config, self._watch, self._most_bytes = config, watch, most_bytes
        self._jobs: deque[Job] = deque()
        self._bytes = 0  # of all that were put and are neither computed nor dropped
        self._changed = threading.Condition()
        self._closing = False
        self._lanes = [
            threading.Thread(target=self._run, name=f"lane-{number}", daemon=True) for number in range(config.lanes)
        ]
        for lane in self._lanes:
            lane.start()

    def put(self, job: Job) -> None:
        """Takes a job, once there is memory for it; its result appears in the future that it carries."""
        with self._changed:
            while self._bytes and self._bytes + job.size > self._most_bytes:
                self._changed.wait()
            if self._closing:
                raise RuntimeError("the batcher is closed")
            self._bytes += job.size
            self._jobs.append(job)
            self._changed.notify_all()  # one alone might be a lane that waits for another kind

    def close(self) -> None:
        """Computes what was taken, then ends the threads."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        for lane in self._lanes:
            lane.join()

    def _run(self) -> None:
        while batch := self._next():
            taken = [job for job in batch if job.result.set_running_or_notify_cancel()]
            if taken:
                self._compute(taken)
            with self._changed:
                self._bytes -= sum(job.size for job in batch)
                self._changed.notify_all()
            del batch, taken  # pictures that were answered are not kept until the next ones come

    def _next(self) -> list[Job]:
        """The next jobs of one kind; empty when the batcher is closed and nothing is left."""
        with self._changed:
            while not self._jobs:
                if self._closing:
                    return []
                self._changed.wait()
            first = self._jobs.popleft()
            batch = [first]
            until = time.monotonic() + self.config.wait
            while True:
                self._take_like(batch)
                left = until - time.monotonic()
                if len(batch) == self.config.size or left <= 0 or self._closing:
                    return batch
                self._changed.wait(left)

    def _take_like(self, batch: list[Job]) -> None:
        """Moves waiting jobs of the batch's kind into it, while there is a place."""
        if len(batch) == self.config.size:
            return
        others: deque[Job] = deque()
        for job in self._jobs:
            (batch if job.kind == batch[0].kind and len(batch) < self.config.size else others).append(job)
        self._jobs = others

    def _compute(self, batch: Sequence[Job]) -> None:
        started = time.monotonic()
        try:
            found = detect_filled(batch[0].detector, [job.image for job in batch], self.config.size)
        except Exception as error:  # whatever it is, its pictures are told and the lane goes on
            for job in batch:
                job.result.set_exception(error)
            return
        took = time.monotonic() - started
        for number, (job, one) in enumerate(zip(batch, found, strict=True)):
            computed = Computed(one, started - job.since, took, len(batch))
            if number == 0:
                self._watch(computed)
            job.result.set_result(computed)


def detect_filled(detector: Detector, images: Sequence[PreparedImage], size: int) -> list[Detections]:
    """The objects in images of one padded shape, computed in a batch of just `size` whatever their number."""
    blank = [PreparedImage(np.zeros_like(images[0].pixels), images[0].geometry, images[0].padded)]
    return detector.detect([*images, *blank * (size - len(images))])[: len(images)]
