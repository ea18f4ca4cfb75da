"""Where the scans of a JPEG lie in its bytes, and what in these cannot be as it was saved."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from tood.data.images.headers import JPEG_FRAMES

_COEFFICIENTS = 64
_WORD = 8
# Fill bytes, and markers without a body.
_ALONE = frozenset({0xFF, 0x01, *range(0xD0, 0xD8)})
# Words from one that is looked at to the next, in looking for long runs of equal bytes.
_STEP = 16
_PIECE = 1 << 15


@dataclass(frozen=True)
class Scan:
    """One scan's compressed bytes.

    Attributes:
        begin, end: where they lie in the file.
        gap: where the last restart stands before one that does not follow it, None if all follow each other.
        run: where a few hundred equal bytes begin in it, None if nowhere: what a hole or a lost end is filled with,
            though an even surface may be saved so, too.
    """

    begin: int
    end: int
    gap: int | None
    run: int | None


@dataclass(frozen=True)
class JpegScans:
    """The scans of a JPEG, as far as its bytes make sense.

    Attributes:
        scans: at least one.
        block: rows of a row of its blocks.
        ended: whether the last of them is followed by the marker that ends a picture.
        complete: whether the scans have all bits of every coefficient of every colour, but for the last bit of colours
            that are next to even.
    """

    scans: tuple[Scan, ...]
    block: int
    ended: bool
    complete: bool

    @property
    def plain(self) -> bool:
        """Whether this is one scan, with nothing to be seen in its bytes that could not be as it was saved."""
        return len(self.scans) == 1 and self.ended and self.scans[0].run is self.scans[0].gap is None


@dataclass
class _Frame:
    """What is known of a picture while its file is walked through.

    Attributes:
        missing: bits that the scans so far have left out, [64] by component.
        detail: bytes of scans of its finer coefficients, by component.
        blocks: 8x8 blocks in each component, at most.
    """

    block: int = 0
    blocks: int = 0
    missing: dict[int, list[int]] = field(default_factory=dict)
    detail: dict[int, int] = field(default_factory=dict)

    @property
    def complete(self) -> bool:
        return bool(self.missing) and not any(map(any, self.missing.values()))

    @property
    def nearly_complete(self) -> bool:
        """The same, but for the last bit of components that have next to no detail to sharpen."""
        return bool(self.missing) and all(
            not any(left) or (max(left) == 1 and not left[0] and 8 * self.detail.get(name, 0) < self.blocks)
            for name, left in self.missing.items()
        )


def jpeg_scans(data: bytes) -> JpegScans | None:
    """The scans of a JPEG file; None if none begins, or what comes before it makes no sense."""
    values = np.frombuffer(data, np.uint8)
    frame = _Frame()
    scans: list[Scan] = []
    at = 2
    while True:
        while at + 4 <= len(data) and data[at] == 0xFF and data[at + 1] in _ALONE:
            at += 1 if data[at + 1] == 0xFF else 2
        marker, end = data[at + 1 : at + 2], at + 2 + int.from_bytes(data[at + 2 : at + 4], "big")
        ended = data[at : at + 2] == b"\xff\xd9"
        broken = data[at : at + 1] != b"\xff" or end > len(data) or end < at + 4
        if ended or broken or (scans and frame.complete):
            break
        body = data[at + 4 : end]
        at = end
        if marker[0] in JPEG_FRAMES:
            if not _begin(frame, body):
                break
        elif marker[0] == 0xDA:
            if not _add(frame, body):
                break
            at, gap = _end(values, end)
            if at > end:
                scans.append(Scan(end, at, gap, _run(values, end, at)))
            if len(body) and body[-3:-2] != b"\0":
                _count(frame, body, at - end)
    if not scans or not frame.block:
        return None
    return JpegScans(tuple(scans), frame.block, ended, frame.complete or frame.nearly_complete)


def _begin(frame: _Frame, body: bytes) -> bool:
    """Notes what a frame's header says; False if that makes no sense."""
    if len(body) < 6 or not body[5] or len(body) < 6 + 3 * body[5]:
        return False
    parts = [body[6 + 3 * number : 9 + 3 * number] for number in range(body[5])]
    frame.missing = {part[0]: [16] * _COEFFICIENTS for part in parts}
    frame.block = 8 * max(part[1] & 15 for part in parts)
    height, width = int.from_bytes(body[1:3], "big"), int.from_bytes(body[3:5], "big")
    frame.blocks = -(-height // 8) * -(-width // 8)
    return True


def _components(body: bytes) -> bytes:
    return body[1 : 1 + 2 * body[0] : 2]


def _add(frame: _Frame, body: bytes) -> bool:
    """Notes what a scan adds, by its header; False if that makes no sense."""
    count = body[0] if body else 0
    if not count or len(body) < 1 + 2 * count + 3:
        return False
    first, last, bits = body[1 + 2 * count : 4 + 2 * count]
    last = min(last, _COEFFICIENTS - 1)
    if any(component not in frame.missing for component in _components(body)):
        return False
    for component in _components(body):
        frame.missing[component][first : last + 1] = [bits & 15] * (last + 1 - first)
    return True


def _count(frame: _Frame, body: bytes, length: int) -> None:
    for component in _components(body):
        frame.detail[component] = frame.detail.get(component, 0) + length


def _end(values: NDArray[np.uint8], begin: int) -> tuple[int, int | None]:
    """Where the compressed bytes from `begin` on end, at a marker other than a restart's or at the file's end; and
    the `gap` in them.
    """
    restarts: list[NDArray[np.int64]] = []
    end = len(values)
    room = np.empty(min(_PIECE, end), np.bool_)
    # A piece at a time, which stays in the processor's cache: a hundredth of the time of decoding.
    for at in range(begin, len(values) - 1, _PIECE):
        size = min(_PIECE, len(values) - 1 - at)
        marks = np.equal(values[at : at + size], 0xFF, out=room[:size])
        np.logical_and(marks, values[at + 1 : at + 1 + size], out=marks)
        if not marks[marks.argmax()]:
            continue
        places = at + np.flatnonzero(marks)
        following = values[places + 1]
        others = np.flatnonzero((following < 0xD0) | (following > 0xD7))
        restarts.append(places[: others[0]] if len(others) else places)
        if len(others):
            end = int(places[others[0]])
            break
    return end, _gap(values, np.concatenate(restarts), begin) if restarts else None


def _gap(values: NDArray[np.uint8], restarts: NDArray[np.int64], begin: int) -> int | None:
    """The restart before one whose number is not the next one, of those at these places."""
    wrong = np.flatnonzero(values[restarts + 1] & 7 != np.arange(len(restarts)) % 8)
    if not len(wrong):
        return None
    return int(restarts[wrong[0] - 1]) if wrong[0] else begin


def _run(values: NDArray[np.uint8], begin: int, end: int) -> int | None:
    """Where the first long run of equal bytes begins; one of two steps is found wherever it lies."""
    start = -(-begin // _WORD) * _WORD
    words = values[start : max(start, end // _WORD * _WORD)].view(np.uint64)[::_STEP]
    same = words[1:] == words[:-1]
    if not same.any():
        return None
    for place in np.flatnonzero(same).tolist():
        first: int = start + place * _STEP * _WORD
        if (values[first : first + (_STEP + 1) * _WORD] == values[first]).all():
            while first > begin and values[first - 1] == values[first]:
                first -= 1
            return first
    return None
