"""Frames with what a detector finds on them; decoding runs ahead of the network."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from tood.inference import read_ahead
from tood.structures import Detections
from tood.video.frames import FailedFrame, Frame, FrameSource, Item
from tood.video.open import open_source
from tood.video.tracking import LEAST_SCORE, Seen, Tracking

if TYPE_CHECKING:
    from tood.inference import Detector, PreparedImage


@dataclass(frozen=True, eq=False)
class FoundFrame:
    """A frame and what is on it.

    Attributes:
        frame: the frame.
        seen: all that was found, without tracks; None of a frame that was passed by, as it is known.
    """

    frame: Frame
    seen: Seen | None


Found: TypeAlias = "FoundFrame | FailedFrame"


def find(
    detector: Detector,
    items: Iterator[Item],
    *,
    batch_size: int = 1,
    known: int = 0,
    stop: Callable[[], bool] | None = None,
) -> Generator[Found, None, None]:
    """What is on each frame, in order; a thread decodes and scales the next while the network computes.

    Args:
        detector: finds the objects.
        items: frames, which are taken in that thread.
        batch_size: frames computed together.
        known: number of frames at the beginning that are given as they are: nothing is computed for them.
        stop: ends the frames early when it says so, before one that is read by then.
    """
    waiting: list[tuple[Item, PreparedImage | None]] = []
    left = known

    def read(_: int) -> tuple[Item, PreparedImage | None] | None:
        nonlocal left
        item = next(items, None)  # before the question: where there is none, all is done
        if item is None or (stop is not None and stop()):
            return None
        if isinstance(item, FailedFrame):
            return item, None
        if left:
            left -= 1
            return item, None
        return item, detector.prepare(item.pixels)

    def computed() -> Iterator[Found]:
        pictures = [picture for _, picture in waiting if picture is not None]
        results = iter(detector.detect(pictures))
        for item, picture in waiting:
            if isinstance(item, FailedFrame):
                yield item
            else:
                yield FoundFrame(item, None if picture is None else as_seen(next(results)))
        waiting.clear()

    with closing(read_ahead(_endless(), read, batch_size)) as ahead:
        for job in ahead:
            taken = job()
            if taken is None:
                break
            waiting.append(taken)
            if sum(picture is not None for _, picture in waiting) in (0, batch_size):
                yield from computed()
    yield from computed()


def _endless() -> Iterator[int]:
    number = 0
    while True:
        yield number
        number += 1


def as_seen(found: Detections) -> Seen:
    """Detections as arrays, without tracks."""
    return Seen(
        found.boxes.numpy().astype(np.float32),
        found.scores.numpy().astype(np.float32),
        found.labels.numpy().astype(np.int64),
        np.full(len(found), -1, np.int64),
    )


def detections(
    detector: Detector, source: str | Path | FrameSource, *, batch_size: int = 1, track: Tracking | None = None
) -> Iterator[Found]:
    """The frames of a video and what is on each, one after the other; nothing is written.

        for found in tood.video.detections(detector, "clip.mp4", track=Tracking("bytetrack")):
            if isinstance(found, FoundFrame):
                found.frame.position.time, found.frame.pixels, found.seen.boxes, found.seen.tracks

    Args:
        detector: finds the objects.
        source: as for `open_source`, or a source that is open.
        batch_size: frames computed together.
        track: how objects are followed; None leaves them without numbers.

    Raises:
        ToodError: if there is no such video, or a package is missing.
    """
    video = open_source(source) if isinstance(source, (str, Path)) else source
    tracker = None if track is None else track.build(video.rate)
    if track is not None:
        detector = detector.with_threshold(min(detector.config.score_threshold, LEAST_SCORE))
    for found in find(detector, video.frames(), batch_size=batch_size):
        if isinstance(found, FoundFrame) and tracker is not None and found.seen is not None:
            seen = tracker.update(found.seen, found.frame.position.time, found.frame.pixels)
            yield replace(found, seen=seen)
        else:
            yield found
