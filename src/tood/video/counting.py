"""Objects that cross lines or are within zones, counted by the package `supervision`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from tood.errors import ToodError
from tood.video.tracking import Seen, require_tracking

Point = tuple[float, float]

# Pixels from the first one that a place may be away: more than any video has, and what is computed with it is exact.
_FARTHEST = 1_000_000


@dataclass(frozen=True)
class Line:
    """A line between two places x, y in pixels; from the first to the second, "in" is from right to left."""

    name: str
    start: Point
    end: Point


@dataclass(frozen=True)
class Zone:
    """A polygon of three or more places x, y in pixels."""

    name: str
    corners: tuple[Point, ...]


def parse_line(text: str, number: int) -> Line:
    """A line from `NAME=x1,y1,x2,y2`, the name left out or not; `number` names it then.

    Raises:
        ToodError: if it is none.
    """
    name, points = _points("--line", text, f"line {number}")
    if len(points) != 2 or points[0] == points[1]:
        raise ToodError(f"--line {text}: give two different places, as in door=100,300,500,300")
    return Line(name, points[0], points[1])


def parse_zone(text: str, number: int) -> Zone:
    """A zone from `NAME=x1,y1,x2,y2,x3,y3,...`, the name left out or not; `number` names it then.

    Raises:
        ToodError: if it is none.
    """
    name, points = _points("--zone", text, f"zone {number}")
    if len(set(points)) < 3:
        raise ToodError(f"--zone {text}: give three places or more, as in yard=0,0,400,0,400,300")
    return Zone(name, tuple(points))


def _points(option: str, text: str, usual: str) -> tuple[str, list[Point]]:
    name, equals, numbers = text.rpartition("=")
    try:
        values = [float(value) for value in numbers.split(",")]
    except ValueError:
        values = []
    if not values or len(values) % 2 or not all(np.isfinite(values)) or (equals and not name.strip()):
        raise ToodError(f"{option} {text}: expected numbers x1,y1,x2,y2,... in pixels, with NAME= before them or not")
    if max(map(abs, values)) > _FARTHEST:
        raise ToodError(f"{option} {text}: a place is more than {_FARTHEST:,} pixels away: no video is so large")
    return (name.strip() or usual), list(zip(values[::2], values[1::2], strict=True))


def _rounded(point: Point) -> tuple[int, int]:
    return round(point[0]), round(point[1])


@dataclass
class _Within:
    """What was in a zone so far."""

    now: int = 0
    most: int = 0
    most_of: Counter[int] = field(default_factory=Counter)
    objects: dict[int, int] = field(default_factory=dict)


class Counters:
    """Counts through one video.

    Args:
        lines: crossed by objects that are tracked; a crossing counts when the whole box is on the other side.
        zones: an object is within by the middle of its lower side, where it stands.
        tracked: whether objects are followed: else no frame tells which of them were there before, and zones tell of
            no objects in all.

    Raises:
        ToodError: if two have one name, or supervision is not installed.
    """

    def __init__(self, lines: Sequence[Line] = (), zones: Sequence[Zone] = (), *, tracked: bool = True) -> None:
        names = [line.name for line in lines] + [zone.name for zone in zones]
        if len(set(names)) < len(names):
            raise ToodError(f"two lines or zones are called {Counter(names).most_common(1)[0][0]!r}: give other names")
        self.lines, self.zones, self._tracked = tuple(lines), tuple(zones), tracked
        self._lines: list[Any] = []
        self._masks: list[NDArray[np.uint8]] = []
        self._masked: tuple[int, int] | None = None  # their shape
        self._within = [_Within() for _ in zones]
        if not names:
            return
        supervision = require_tracking("counting")
        for line in lines:
            start, end = supervision.Point(*line.start), supervision.Point(*line.end)
            self._lines.append(supervision.LineZone(start=start, end=end))

    def require_within(self, size: tuple[int, int]) -> None:
        """Refuses lines and zones of which nothing lies in a frame of this (height, width): they would count nothing.

        Raises:
            ToodError: if there is one.
        """
        height, width = size
        outside = [
            f"the line {line.name!r}"
            for line in self.lines
            # What lies in a frame can be on both sides of it only where it passes through.
            if not cv2.clipLine((0, 0, width + 1, height + 1), _rounded(line.start), _rounded(line.end))[0]
        ]
        masks = self._masks_of(size) if self.zones else []
        outside += [f"the zone {zone.name!r}" for zone, mask in zip(self.zones, masks, strict=True) if not mask.any()]
        if outside:
            raise ToodError(
                f"{outside[0]} lies outside of the frames, which are {width}x{height} pixels: it would count nothing"
            )

    def update(self, seen: Seen, size: tuple[int, int]) -> dict[str, Any]:
        """Takes the next frame; gives what is counted by now, by the names of lines and zones.

        Args:
            seen: what is on it.
            size: (height, width) of it.
        """
        if not (self.lines or self.zones):
            return {}
        import supervision

        given = supervision.Detections(
            xyxy=seen.boxes, confidence=seen.scores, class_id=seen.labels, tracker_id=seen.tracks
        )
        told: dict[str, Any] = {}
        for line, counter in zip(self.lines, self._lines, strict=True):
            counter.trigger(given)
            told[line.name] = {"in": int(counter.in_count), "out": int(counter.out_count)}
        places = given.get_anchors_coordinates(supervision.Position.BOTTOM_CENTER).reshape(-1, 2)
        for zone, mask, within in zip(self.zones, self._masks_of(size), self._within, strict=True):
            columns, rows = np.rint(places).astype(np.int64).T
            inside = mask[rows.clip(0, size[0]), columns.clip(0, size[1])].astype(bool)
            within.now = int(inside.sum())
            within.most = max(within.most, within.now)
            within.most_of |= Counter(seen.labels[inside].tolist())  # of each class the larger of both
            for track, label in zip(seen.tracks[inside].tolist(), seen.labels[inside].tolist(), strict=True):
                if track >= 0:
                    within.objects.setdefault(track, label)
            told[zone.name] = {"now": within.now}
        return told

    def _masks_of(self, size: tuple[int, int]) -> list[NDArray[np.uint8]]:
        """Of each zone what of it lies in a frame, [H + 1, W + 1]: a box may end at the far side of the last pixel."""
        shape = (size[0] + 1, size[1] + 1)
        if self._masked != shape:
            import supervision

            corners = [np.array(zone.corners).round().astype(np.int64) for zone in self.zones]
            self._masked = shape
            self._masks = [supervision.polygon_to_mask(places, (shape[1], shape[0])) for places in corners]
        return self._masks

    def totals(self, class_names: Sequence[str]) -> dict[str, Any]:
        """What was counted in all, class by class.

        Of a zone the most at once (`most`, and `most_by_class` of each class) and, where objects are followed, the
        different ones (`objects`).
        """

        def named(counts: dict[Any, int]) -> dict[str, int]:
            called = {class_names[label] if label < len(class_names) else str(label): n for label, n in counts.items()}
            return dict(sorted(called.items()))

        told: dict[str, Any] = {"lines": {}, "zones": {}}
        for line, counter in zip(self.lines, self._lines, strict=True):
            told["lines"][line.name] = {
                "in": named(counter.in_count_per_class),
                "out": named(counter.out_count_per_class),
            }
        for zone, within in zip(self.zones, self._within, strict=True):
            told["zones"][zone.name] = {"most": within.most, "most_by_class": named(within.most_of)}
            if self._tracked:
                told["zones"][zone.name]["objects"] = named(Counter(within.objects.values()))
        return told
