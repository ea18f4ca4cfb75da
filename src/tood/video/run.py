"""A whole video through a detector into a folder: reading, computing and writing each in a thread of its own."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, field
from itertools import islice
from queue import Queue
from typing import TYPE_CHECKING, Any, TextIO

import numpy as np
from numpy.typing import NDArray

from tood.errors import ToodError
from tood.video.annotate import annotated
from tood.video.counting import Counters, Line, Zone
from tood.video.found import Found, find
from tood.video.frames import TICKS, FailedFrame, FrameSource, Item, Position
from tood.video.journal import SEGMENT, Known, KnownFrame, failed_line, frame_line
from tood.video.results import VideoFolder
from tood.video.segments import SegmentWriter
from tood.video.tables import failed_line as failed_table_line
from tood.video.tables import line as table_line
from tood.video.tracking import LEAST_SCORE, Seen, Tracking
from tood.whole_file import new_temporary

if TYPE_CHECKING:
    from tood.inference import Detector

# Frames that wait to be drawn and written, beyond a batch.
_WAITING = 4


@dataclass(frozen=True)
class VideoConfig:
    """What becomes of a video.

    Attributes:
        batch_size: frames computed together.
        track: how objects are followed, None for not at all.
        lines, zones: what is counted.
        most: frames that are taken, None for all.
    """

    batch_size: int = 1
    track: Tracking | None = None
    lines: tuple[Line, ...] = ()
    zones: tuple[Zone, ...] = ()
    most: int | None = None


@dataclass
class Summary:
    """How a run went.

    Attributes:
        frames: that were looked at, those of the run that was resumed among them.
        failed: frames that could not be read.
        passed_over: frames of a live source that came while others were computed.
        first_failure: why the first of them failed.
        complete: whether the video was done to its end.
        written: names of the files.
    """

    frames: int = 0
    failed: int = 0
    passed_over: int = 0
    first_failure: str = ""
    complete: bool = False
    written: list[str] = field(default_factory=list)


def run_video(
    detector: Detector,
    source: FrameSource,
    folder: VideoFolder,
    config: VideoConfig,
    *,
    stop: Callable[[], bool],
    progress: Callable[[int, int | None], None] = lambda done, of: None,
    waiting: Callable[[Iterator[Found]], Found | None] | None = None,
) -> Summary:
    """Looks at each frame of a video and writes what was asked for; goes on with what the folder has of an earlier run.

    Args:
        detector: finds the objects.
        source: the video.
        folder: to write to, entered.
        config: what is wanted.
        stop: asked of each frame whether to end before it; of a live source that is its end.
        progress: told how many frames are done, and how many there are.
        waiting: takes the next result; None where it is not to be waited for any more.

    Raises:
        ToodError: if the video cannot be read, or a file not be written; what was found is kept.
    """
    if folder.finished is not None:
        return Summary(folder.finished.frames, complete=True, written=list(folder.finished.written))
    if config.track is not None:
        detector = detector.with_threshold(min(detector.config.score_threshold, LEAST_SCORE))
    journal = folder.journal
    journal.open(config.batch_size)
    total = source.count if config.most is None else min(config.most, source.count or config.most)
    with closing(_Writer(folder, config, source.rate, detector.class_names)) as writer:
        known = journal.known()
        begun_at = writer.replay(known, source.live)
        finished = source.live and folder.resumed
        after = journal.frame(begun_at - 1).position if begun_at else None
        frames: Iterator[Item] = iter(()) if finished else source.frames(after)
        items = _Taken(_most(frames, config.most, after))
        done_before = writer.done
        found = find(detector, items, batch_size=config.batch_size, known=journal.frames - begun_at, stop=stop)
        take = waiting or (lambda results: next(results, None))
        with writer:
            while (result := take(found)) is not None:
                writer.put(result)
                progress(writer.done, total)
        found.close()
        if isinstance(frames, Generator):
            with suppress(ValueError):  # a thread still waits for the next
                frames.close()
        summary = writer.summary
        # A wish to stop may come when all is done.
        summary.complete = source.live or (items.ended and writer.done == done_before + items.count)
        if summary.frames or summary.failed:
            last = round(TICKS / source.rate)
            counts = writer.counters.totals(detector.class_names)
            summary.written = folder.finish(
                detector.class_names,
                writer.times,
                last,
                counts,
                frames=summary.frames,
                complete=summary.complete,
            )
    return summary


def _most(items: Iterator[Item], most: int | None, after: Position | None) -> Iterator[Item]:
    """The items up to a number of them, those before `after` counted."""
    done = 0 if after is None else after.number + 1
    return items if most is None else islice(items, max(0, most - done))


class _Taken:
    """Items counted as they are taken; `ended` says whether there are no more."""

    def __init__(self, items: Iterator[Item]) -> None:
        self._items = items
        self.count, self.ended = 0, False

    def __iter__(self) -> Iterator[Item]:
        return self

    def __next__(self) -> Item:
        item = next(self._items, None)
        if item is None:
            self.ended = True
            raise StopIteration
        self.count += 1
        return item


class _Writer:
    """Takes what was found, frame by frame: journal, tracks, counts, lines of tables, and the annotated video.

    As a context it does so in a thread of its own, for whoever puts results in. An error there is raised where the next
    result is put, or at the end.
    """

    def __init__(self, folder: VideoFolder, config: VideoConfig, rate: float, class_names: Sequence[str]) -> None:
        self.folder, self.config, self.rate, self.class_names = folder, config, rate, class_names
        self.summary = Summary()
        self.counters = Counters(config.lines, config.zones, tracked=config.track is not None)
        self.times: list[int] = []
        self._tracker = None if config.track is None else config.track.build(rate)
        self._parts_done = folder.journal.whole_parts() if folder.outputs.video else 0
        self._size: tuple[int, int] | None = None
        self._part: SegmentWriter | None = None
        self._known: Iterator[Known] = iter(())
        self._last_number = -1
        self._scratch: TextIO = folder.journal.scratch.open("w", encoding="utf-8")
        self._queue: Queue[Found | None] = Queue(config.batch_size + _WAITING)
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._work, name="video-writer", daemon=True)

    @property
    def done(self) -> int:
        """Frames done, those that failed among them."""
        return self.summary.frames + self.summary.failed

    def close(self) -> None:
        """Lets go of all files."""
        if self._part is not None:
            self._part.abandon()
            self._part.path.unlink(missing_ok=True)
        self._scratch.close()

    # --- what is known -----------------------------------------------------------------------------------------------

    def replay(self, known: Iterator[Known], all_of_it: bool) -> int:
        """Takes what an earlier run has found and drawn, without the frames; gives how many were read among it.

        Frames that are to be drawn again, or that the tracker must see, are left to be read; `all_of_it` leaves none.
        """
        journal = self.folder.journal
        drawn = self._parts_done * SEGMENT if self.folder.outputs.video else journal.frames
        if all_of_it:
            end = journal.frames
        elif self.config.track is not None and self.config.track.needs_frames:
            end = 0
        else:
            end = min(drawn, journal.frames)
        self._known = known
        while self.summary.frames < end:
            one = next(known)
            if isinstance(one, FailedFrame):
                self._failed(one)
            else:
                self._frame(one.position, one.size, one.seen, None)
        return end

    # --- the thread --------------------------------------------------------------------------------------------------

    def __enter__(self) -> _Writer:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._queue.put(None)
        self._thread.join()
        if kind is None:
            self._raise()
            self._end_part()
            self._scratch.flush()

    def put(self, found: Found) -> None:
        """Hands a result over; waits while too many wait."""
        self._raise()
        self._queue.put(found)

    def _raise(self) -> None:
        if self._failure is not None:
            raise self._failure

    def _work(self) -> None:
        while (found := self._queue.get()) is not None:
            if self._failure is None:
                try:
                    self._take(found)
                except BaseException as error:
                    self._failure = error

    # --- one frame ---------------------------------------------------------------------------------------------------

    def _take(self, found: Found) -> None:
        known = next(self._known, None)
        number = found.number if isinstance(found, FailedFrame) else found.frame.position.number
        if known is not None:
            self._require_same(known, number, isinstance(found, FailedFrame))
        if isinstance(found, FailedFrame):
            if known is None:
                self.folder.journal.file.add(failed_line(found))
            self._failed(found)
            return
        pixels = found.frame.pixels
        height, width = pixels.shape[:2]
        if self._size is None:
            self.counters.require_within((height, width))
        seen = known.seen if isinstance(known, KnownFrame) else found.seen
        assert seen is not None
        if known is None:
            self.folder.journal.file.add(frame_line(found.frame.position, (height, width), seen))
        self._frame(found.frame.position, (height, width), seen, pixels)

    def _require_same(self, known: Known, number: int, failed: bool) -> None:
        told = known.number if isinstance(known, FailedFrame) else known.position.number
        if told != number or isinstance(known, FailedFrame) != failed:
            raise ToodError("the video is not what it was when the run began: leave out --resume to begin anew")

    def _failed(self, failed: FailedFrame) -> None:
        self.summary.failed += 1
        self.summary.first_failure = self.summary.first_failure or failed.reason
        self._passed_over(failed.number)
        self._write_line(failed_table_line(failed))

    def _frame(self, position: Position, size: tuple[int, int], seen: Seen, pixels: NDArray[np.uint8] | None) -> None:
        """Takes a frame; without pixels one that is drawn, or never will be."""
        index = self.summary.frames
        if self._tracker is not None:
            seen = self._tracker.update(seen, position.time, pixels)
        counts = self.counters.update(seen, size)
        self._write_line(table_line(position, seen, counts))
        self._passed_over(position.number)
        self._size = self._size or size
        self.summary.frames += 1
        if not self.folder.outputs.video:
            return
        part = index // SEGMENT
        if part >= self._parts_done:
            if pixels is None:
                return
            self._draw(annotated(pixels, seen, self.class_names, self.counters, counts), position.ticks)
        self.times.append(position.ticks)
        if (index + 1) % SEGMENT == 0:
            self._end_part()

    def _passed_over(self, number: int) -> None:
        self.summary.passed_over += number - self._last_number - 1
        self._last_number = number

    def _write_line(self, content: dict[str, Any]) -> None:
        self._scratch.write(json.dumps(content) + "\n")

    def _draw(self, picture: NDArray[np.uint8], ticks: int) -> None:
        assert self._size is not None
        if self._part is None:
            self._part = SegmentWriter(
                new_temporary(self.folder.journal.folder / "part", ".mp4"), self._size, self.rate
            )
        self._part.add(picture, ticks)

    def _end_part(self) -> None:
        """Puts the part that is being written in its place."""
        if self._part is None:
            return
        part, self._part = self._part, None
        part.close()
        number, left = divmod(len(self.times) - 1, SEGMENT)
        part.path.replace(self.folder.journal.part(number, left + 1))
