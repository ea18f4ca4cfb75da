"""Which object of one frame is which of the next, by the trackers of the package `trackers`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tood.choices import Tracker
from tood.errors import ToodError

# Detections of less than this are nothing to any tracker.
LEAST_SCORE = 0.1
# How much surer than `threshold` a detection must be to begin a track, as in ByteTrack's own code.
_BIRTH_MARGIN = 0.1

INSTALL = "pip install 'tood[track]' && pip install --no-deps trackers"


def require_tracking(what: str) -> Any:
    """The package supervision, which counts; `what` is what it is wanted for.

    Raises:
        ToodError: if it is not installed.
    """
    try:
        import supervision
    except ImportError:
        raise ToodError(f"{what} needs the packages supervision and trackers: {INSTALL}") from None
    return supervision


@dataclass(frozen=True, eq=False)
class Seen:
    """What is shown and saved of a frame.

    Attributes:
        boxes: [K, 4] float32, x1 y1 x2 y2 in pixels of the frame.
        scores: [K] float32.
        labels: [K] int64.
        tracks: [K] int64, the number of each object from its first frame to its last, -1 for one that has none (yet).
    """

    boxes: NDArray[np.float32]
    scores: NDArray[np.float32]
    labels: NDArray[np.int64]
    tracks: NDArray[np.int64]

    def chosen(self, which: NDArray[Any]) -> Seen:
        """Some of them, by a mask or by places."""
        return Seen(self.boxes[which], self.scores[which], self.labels[which], self.tracks[which])


@dataclass(frozen=True)
class Tracking:
    """A tracker and its settings.

    Attributes:
        kind: see `tood.choices.Tracker`.
        threshold: detections of at least this score begin tracks (those of 0.1 more at once, if the tracker asks for
            that); weaker ones, from 0.1, only go on with them.
        memory: seconds after which an object that is not seen is forgotten.
    """

    kind: Tracker
    threshold: float = 0.3
    memory: float = 1.0

    @property
    def needs_frames(self) -> bool:
        """Whether it looks at pixels, so that all frames from the first on must be read to go on with it."""
        return self.kind == "botsort"

    def build(self, rate: float) -> ObjectTracker:
        """A tracker that has seen nothing, for so many frames a second.

        Raises:
            ToodError: if the packages are not installed.
        """
        require_tracking("tracking")
        try:
            import trackers
        except ImportError as error:
            raise ToodError(f"tracking needs the package trackers ({error}): {INSTALL}") from None
        # Its buffer is told in frames of 30 a second, whatever the rate is.
        buffer = max(1, round(30 * self.memory))
        birth = min(self.threshold + _BIRTH_MARGIN, 1.0)
        engine: Any
        if self.kind == "ocsort":
            engine = trackers.OCSORTTracker(
                lost_track_buffer=buffer, frame_rate=rate, high_conf_det_threshold=self.threshold
            )
        else:
            kinds = {"bytetrack": trackers.ByteTrackTracker, "botsort": trackers.BoTSORTTracker}
            engine = kinds[self.kind](
                lost_track_buffer=buffer,
                frame_rate=rate,
                track_activation_threshold=birth,
                high_conf_det_threshold=self.threshold,
            )
        return ObjectTracker(engine, self)


class ObjectTracker:
    """A tracker at work: takes the frames of one video in order."""

    def __init__(self, engine: Any, config: Tracking) -> None:
        self._engine, self._config = engine, config

    def update(self, seen: Seen, time: float, pixels: NDArray[np.uint8] | None) -> Seen:
        """The detections with the numbers of their objects, in the order that they had.

        Args:
            seen: all of the frame from a score of 0.1 on.
            time: of the frame, in seconds.
            pixels: [H, W, 3] uint8 RGB, for a tracker that needs them.

        Returns:
            Those that have a track, or are sure enough to be shown without.
        """
        import supervision

        given = supervision.Detections(
            xyxy=seen.boxes, confidence=seen.scores, class_id=seen.labels, data={_ROW: np.arange(len(seen.boxes))}
        )
        frame = None
        if self._config.needs_frames and pixels is not None:
            frame = np.ascontiguousarray(pixels[:, :, ::-1])  # as OpenCV has it
        found = self._engine.update(given, frame=frame, timestamp=time)
        tracks = np.full(len(seen.boxes), -1, np.int64)
        if len(found) and found.tracker_id is not None:
            tracks[np.asarray(found.data[_ROW], np.int64)] = found.tracker_id
        known = Seen(seen.boxes, seen.scores, seen.labels, tracks)
        return known.chosen((tracks >= 0) | (seen.scores >= self._config.threshold))


_ROW = "row"
