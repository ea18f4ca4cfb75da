"""Videos in files, at addresses and as folders of frames: what has an end, and can be read again."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from itertools import chain
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tood.data.images import decode_image
from tood.errors import ToodError, first_line
from tood.video.frames import Clock, FailedFrame, Frame, Item, Position, checksum

# Of a file: it names no others, and none of another machine's (playlists and scripts can).
_FILE_OPTIONS: Mapping[str, str] = MappingProxyType({"protocol_whitelist": "file"})
# Errors one after the other, without a frame between them, after which the rest is taken for lost.
_PATIENCE = 300
# Seconds before the wanted frame that reading begins at, for decoders that need frames from before a key frame.
_RUN_UP = 1.0
# What MP4 and MOV files begin with.
_FIRST_BOXES = (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip")
_NO_INDEX = (
    "its index is missing, which MP4 and MOV files have at their end as a rule: copy or download it again; "
    "of a recording that broke off nothing can be read"
)


def require_av() -> Any:
    """The package that decodes and encodes video.

    Raises:
        ToodError: if it is not installed.
    """
    try:
        import av
    except ImportError:
        raise ToodError("videos need the package av, which is not installed: pip install 'tood[video]'") from None
    return av


class BrokenOff(str):
    """Why the rest of a container was not reached."""


class VideoFile:
    """A file of any kind that FFmpeg reads, or an address of one that has an end.

    Args:
        name: path or address.
        options: for FFmpeg; None are those of a file on this machine.
        identity: by what a changed file is known.

    Raises:
        ToodError: if it holds no video.
    """

    live = False

    def __init__(self, name: str, options: Mapping[str, str] | None = None, identity: object = None) -> None:
        self.name, self._identity = name, identity
        self._options = dict(_FILE_OPTIONS if options is None else options)
        with closing(self._open()) as container:
            stream = container.streams.video[0]
            self.rate = float(stream.average_rate or stream.guessed_rate or 30)
            self.count: int | None = stream.frames or self._counted(container, stream)

    def identity(self) -> object:
        """Size and time of the file."""
        return self._identity

    def frames(self, after: Position | None = None) -> Iterator[Item]:
        """The frames; a part that cannot be decoded is a frame that failed."""
        if after is None:
            yield from self._items(Clock(self.rate))
            return
        rest = None if after.stamp is None else self._found_again(after)
        yield from self._counted_to(after) if rest is None else rest

    def _items(self, clock: Clock) -> Iterator[Item]:
        with closing(self._open()) as container:
            stream = container.streams.video[0]
            yield from self._told(decoded_frames(container, stream), float(stream.time_base), clock, 0)

    def _told(self, decoded: Iterator[Any], unit: float, clock: Clock, number: int) -> Iterator[Item]:
        """Decoded frames as items, from a number on; `unit` is seconds of a stamp."""
        for one in decoded:
            if isinstance(one, str):
                yield FailedFrame(number, f"{self.name}: frame {number} cannot be decoded ({one})")
            else:
                yield framed(one, clock, number, unit)
            number += 1

    def _found_again(self, after: Position) -> Iterator[Item] | None:
        """What comes after a frame, by its time stamp; None where it is not there, or does not look as it did."""
        av = require_av()
        container = self._open()
        stream = container.streams.video[0]
        unit = float(stream.time_base)
        wanted = after.stamp or 0
        try:
            container.seek(int(wanted - _RUN_UP / unit), stream=stream, backward=True)
            decoded = decoded_frames(container, stream)
            for one in decoded:
                if isinstance(one, str) or one.pts is None or one.pts < wanted:
                    continue
                if one.pts == wanted and checksum(upright(one)) == after.check:
                    return self._rest(container, decoded, unit, after)
                break
        except av.FFmpegError:
            pass
        container.close()
        return None

    def _rest(self, container: Any, decoded: Iterator[Any], unit: float, after: Position) -> Iterator[Item]:
        with closing(container):
            yield from self._told(decoded, unit, Clock(self.rate, after.start, after.ticks), after.number + 1)

    def _counted_to(self, after: Position) -> Iterator[Item]:
        """What comes after a frame, by counting from the beginning."""
        items = self._items(Clock(self.rate))
        for item in items:
            if isinstance(item, Frame) and item.position.number >= after.number:
                if item.position != after:
                    break
                yield from items
                return
        raise ToodError(f"{self.name} is not the video that it was: leave out --resume to begin anew")

    def _open(self) -> Any:
        av = require_av()
        try:
            container = av.open(self.name, options=self._options, timeout=(20.0, 20.0), metadata_errors="replace")
        except (av.FFmpegError, OSError, ValueError) as error:
            why = _NO_INDEX if _lacks_index(Path(self.name)) else reason(error)
            raise ToodError(f"{self.name} cannot be read as a video: {why}") from error
        if not container.streams.video:
            container.close()
            if _lacks_index(Path(self.name)):
                raise ToodError(f"{self.name} cannot be read as a video: {_NO_INDEX}")
            raise ToodError(f"{self.name} holds no video")
        return container

    def _counted(self, container: Any, stream: Any) -> int | None:
        if stream.duration is not None:
            return round(float(stream.duration * stream.time_base) * self.rate)
        return None if container.duration is None else round(container.duration / 1e6 * self.rate)


def _lacks_index(path: Path) -> bool:
    """Whether a file on this machine is an MP4 or MOV, a row of boxes, of which the one with the index is not whole."""
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            place = 0
            while (start := file.read(16)) and len(start) >= 8:
                length, kind = int.from_bytes(start[:4], "big"), start[4:8]
                if place == 0 and kind not in _FIRST_BOXES:
                    return False
                if length == 1:  # a longer one tells it behind its name
                    length = int.from_bytes(start[8:], "big")
                if kind == b"moov":
                    return place + length > size
                if length < 8:  # up to the end of the file
                    break
                place += length
                file.seek(place)
        return place > 0
    except OSError:
        return False


def reason(error: BaseException) -> str:
    """What FFmpeg says, without number and file name."""
    return str(getattr(error, "strerror", None) or first_line(error))


def decoded_frames(container: Any, stream: Any) -> Iterator[Any]:
    """Decoded frames of a container, and in a sentence what each part was that cannot be decoded.

    What is broken at the end of a file, as where it was cut off, ends it. Where nothing more can be read, the last is a
    `BrokenOff`.
    """
    av = require_av()
    stream.thread_type = "AUTO"
    failures = 0
    while failures < _PATIENCE:
        try:
            for packet in container.demux(stream):
                try:
                    for frame in packet.decode():
                        failures = 0
                        yield frame
                except av.EOFError:
                    return
                except av.FFmpegError as error:
                    failures += 1
                    yield reason(error)
                    if failures >= _PATIENCE:
                        return
            return
        except av.EOFError:
            return
        except av.FFmpegError as error:
            failures += 1
            if isinstance(error, (av.error.ExitError, OSError)) and not isinstance(error, av.error.InvalidDataError):
                yield BrokenOff(reason(error))
                return
            yield reason(error)


def framed(decoded: Any, clock: Clock, number: int, unit: float) -> Frame:
    """A decoded frame with its place; `unit` is seconds of a stamp."""
    pixels = upright(decoded)
    ticks = clock.tell(decoded.pts, unit)
    return Frame(Position(number, ticks, decoded.pts, clock.start, checksum(pixels)), pixels)


def upright(decoded: Any) -> NDArray[np.uint8]:
    """[H, W, 3] uint8 RGB of a decoded frame, turned as the file says: telephones film lying down."""
    # In this thread: to start others for each frame costs as much as they give.
    pixels: NDArray[np.uint8] = decoded.to_ndarray(format="rgb24", threads=1)
    quarters = round(decoded.rotation / 90) % 4
    return np.ascontiguousarray(np.rot90(pixels, quarters)) if quarters else pixels


class FrameFolder:
    """A folder of pictures as a video, in the order of the numbers in their names.

    Args:
        folder: the folder, for messages.
        pictures: its pictures, in any order.
        rate: frames a second.
    """

    live = False

    def __init__(self, folder: str, pictures: Sequence[Path], rate: float) -> None:
        self.name, self.rate = folder, rate
        self._pictures = sorted(pictures, key=_by_numbers)
        self.count: int | None = len(self._pictures)

    def identity(self) -> object:
        """Names, sizes and times of the pictures, in short."""
        import hashlib

        digest = hashlib.sha256()
        for path in self._pictures:
            found = path.stat()
            digest.update(f"{path.name}\0{found.st_size}\0{found.st_mtime_ns}\n".encode(errors="surrogateescape"))
        return digest.hexdigest()

    def frames(self, after: Position | None = None) -> Iterator[Item]:
        """The frames; a picture that cannot be read is a frame that failed."""
        first = 0 if after is None else after.number + 1
        for number, path in enumerate(self._pictures[first:], first):
            try:
                pixels = decode_image(path).pixels
            except ToodError as error:
                yield FailedFrame(number, str(error))
                continue
            yield Frame(Position(number, round(number * 90_000 / self.rate), check=checksum(pixels)), pixels)


def _by_numbers(path: Path) -> list[tuple[int, str]]:
    """Sorts frame_10 after frame_2."""
    parts = re.split(r"(\d+)", str(path))
    texts = [(0, part) for part in parts[::2]]
    numbers = [(int(part), part) for part in parts[1::2]]
    return list(chain.from_iterable(zip(texts, [*numbers, (0, "")], strict=True)))
