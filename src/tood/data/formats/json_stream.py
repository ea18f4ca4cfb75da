"""A json object read key by key from its file, long lists of objects block by block: never all of it in memory.

Only what is as it usually is gets through here. All else is `Unusual`, for a reader of whole files to take or to refuse
with the place of the fault.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import BinaryIO, TypeVar

import msgspec
import numpy as np
from numpy.typing import NDArray

T = TypeVar("T")

_BLOCK = 1 << 22
# A value that is no list of objects is read whole, if it is no longer.
_LARGEST_VALUE = 1 << 26
_BOM = b"\xef\xbb\xbf"
_SPACE = re.compile(rb"[ \t\n\r]*")
_STRING = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"', re.DOTALL)
_SCALAR = re.compile(rb"[^\s,\]}]+")
_QUOTE, _BACKSLASH, _COMMA, _OPEN, _CLOSE = b'"\\,{}'
_END = -1


class Unusual(Exception):  # noqa: N818 - no error: another way of reading takes over
    """What stands there is not read as a stream."""


class _Nothing(msgspec.Struct, gc=False):
    """Of any object none of its values."""


class JsonStream:
    """The object in a file.

    Args:
        file: from its beginning.
        block: bytes that are read at once.
    """

    def __init__(self, file: BinaryIO, block: int = _BLOCK) -> None:
        self._file, self._size = file, block
        self._data, self._at, self._ended = b"", 0, False
        self._read()
        self._at = len(_BOM) if self._data.startswith(_BOM) else 0

    def sections(self) -> Iterator[str]:
        """Each key in turn: before the next one its value is to be taken, by `objects`, `value` or `skip`.

        Raises:
            Unusual: if the file is no object, ends within it or goes on behind it.
        """
        self._take(b"{")
        if self._next() != _CLOSE:
            while True:
                key: str = msgspec.json.decode(self._string(), type=str)
                self._take(b":")
                yield key
                if self._next() == _CLOSE:
                    break
                self._take(b",")
        self._at += 1
        if self._next() != _END:
            raise Unusual

    def objects(self, decode: Callable[[bytes], T]) -> Iterator[T]:
        """The value, a list of objects, in pieces.

        Args:
            decode: is given the json of a list of some of them.

        Raises:
            Unusual: if it is anything else.
        """
        self._take(b"[")
        closed = self._next() == ord("]")
        while not closed:
            text, closed = self._some_objects()
            text.decode()  # what is not wanted of an object is no longer looked at
            yield decode(b"[%b]" % text)
        self._take(b"]")

    def value(self) -> object:
        """The value, of whatever kind but not too large."""
        wanted = self._size
        while (end := self._value_end()) is None:
            if self._ended or len(self._data) - self._at > _LARGEST_VALUE:
                raise Unusual
            wanted *= 2
            self._fill(wanted)
        text, self._at = self._data[self._at : end], end
        value: object = msgspec.json.decode(text)
        return value

    def skip(self) -> None:
        """Pass over the value, which must be sound all the same."""
        if self.holds_objects():
            for _ in self.objects(msgspec.json.Decoder(list[_Nothing]).decode):
                pass
        else:
            self.value()

    def holds_objects(self) -> bool:
        """Whether the value is a list that begins with an object."""
        if self._next() != ord("["):
            return False
        self._fill(self._size)
        behind = _space_end(self._data, self._at + 1)
        return self._data[behind : behind + 1] == b"{"

    def _read(self) -> None:
        """Read a block more."""
        more = self._file.read(self._size)
        self._ended = not more
        self._data, self._at = self._data[self._at :] + more, 0

    def _fill(self, wanted: int) -> None:
        """Have so many bytes, if the file has them."""
        while not self._ended and len(self._data) - self._at < wanted:
            self._read()

    def _next(self) -> int:
        """The next byte that is no space, where it then stands; `_END` behind the last one."""
        while True:
            self._at = _space_end(self._data, self._at)
            if self._at < len(self._data):
                return self._data[self._at]
            if self._ended:
                return _END
            self._read()

    def _take(self, byte: bytes) -> None:
        if self._next() != byte[0]:
            raise Unusual
        self._at += 1

    def _string(self) -> bytes:
        if self._next() != _QUOTE:
            raise Unusual
        wanted = self._size
        while (found := _STRING.match(self._data, self._at)) is None:
            if self._ended or wanted > _LARGEST_VALUE:
                raise Unusual
            wanted *= 2
            self._fill(wanted)
        self._at = found.end()
        return found[0]

    def _some_objects(self) -> tuple[bytes, bool]:
        """The text of the next whole objects of a list, with commas between, and whether the list ends behind them."""
        wanted = self._size
        while True:
            if self._next() != _OPEN:
                raise Unusual
            self._fill(wanted)
            end, closed = self._last_end()
            if end is not None:
                break
            if self._ended:
                raise Unusual
            wanted *= 2
        text, self._at = self._data[self._at : end], end
        if not closed:
            self._take(b",")
        return text, closed

    def _last_end(self) -> tuple[int | None, bool]:
        """Where the last object ends of those in memory whose successor is known, and whether the list ends there."""
        text = np.frombuffer(self._data, np.uint8, offset=self._at)
        ends = _object_ends(text)
        behind = np.append(text, np.uint8(0))[ends + 1] if len(ends) and ends[-1] + 1 == len(text) else text[ends + 1]
        last: int | None = None
        for at in np.flatnonzero(behind != _COMMA).tolist():
            place = _space_end(self._data, self._at + int(ends[at]) + 1)
            follows = self._data[place : place + 1]
            if follows == b"]":
                return self._at + int(ends[at]) + 1, True
            if not follows and not self._ended:
                ends = ends[:at]
                break
            if follows != b",":
                raise Unusual
        if len(ends):
            last = self._at + int(ends[-1]) + 1
        return last, False

    def _value_end(self) -> int | None:
        """Where the value ends that begins here, None if it goes on behind what is in memory."""
        first = self._next()
        if first == _QUOTE:
            found = _STRING.match(self._data, self._at)
        elif first in b"[{":
            text = np.frombuffer(self._data, np.uint8, offset=self._at)
            ends = _closings(text, b"[{", b"]}")
            return self._at + int(ends[0]) + 1 if len(ends) else None
        else:
            found = _SCALAR.match(self._data, self._at)
            if found is not None and found.end() == len(self._data) and not self._ended:
                return None
        return None if found is None else found.end()


def _object_ends(text: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Where the objects end that no other object holds."""
    return _closings(text, b"{", b"}")


def _closings(text: NDArray[np.uint8], opening: bytes, closing: bytes) -> NDArray[np.int64]:
    """Where brackets close that lie within no others, of a text that begins outside of a string."""
    is_open = np.isin(text, list(opening)) if len(opening) > 1 else text == opening[0]
    is_close = np.isin(text, list(closing)) if len(closing) > 1 else text == closing[0]
    brackets = np.flatnonzero(is_open | is_close)
    # Behind an odd number of quotation marks it is within a string.
    brackets = brackets[np.searchsorted(_quotes(text), brackets) % 2 == 0]
    steps = np.where(is_open[brackets], 1, -1)
    return np.asarray(brackets[(np.cumsum(steps) == 0) & (steps < 0)])


def _quotes(text: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Where quotation marks stand that begin or end a string."""
    quotes = np.flatnonzero(text == _QUOTE)
    after_backslash = np.flatnonzero(text[quotes - 1] == _BACKSLASH) if len(quotes) else quotes
    escaped = []
    for at in after_backslash.tolist():
        before = place = int(quotes[at])
        while place > 0 and text[place - 1] == _BACKSLASH:
            place -= 1
        if (before - place) % 2:
            escaped.append(at)
    return np.delete(quotes, escaped) if escaped else quotes


def _space_end(data: bytes, at: int) -> int:
    found = _SPACE.match(data, at)
    return at if found is None else found.end()
