"""A json object read key by key from its file, long lists block by block: never all of it in memory.

What stands there is what pydantic's `from_json` reads, and a fault is told as it tells it of the whole file, with line
and column. Who takes the pieces of a list may read the usual ones in some quicker way.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, BinaryIO

import msgspec
import numpy as np
from numpy.typing import NDArray
from pydantic_core import from_json

_BLOCK = 1 << 22
# What is kept of a long value that is but to be told.
_GLIMPSE = 1 << 12
_BOM = b"\xef\xbb\xbf"
_SPACE = re.compile(rb"[ \t\n\r]*")
_STRING = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"', re.DOTALL)
_SCALAR = re.compile(rb"[^\s,\]}]+")
_PLACE = re.compile(r"at line (\d+) column (\d+)$")
_QUOTE, _BACKSLASH, _LIST, _OPEN, _CLOSE = b'"\\[{}'
_BRACKETS = {_LIST: b"[]", _OPEN: b"{}"}
# A square bracket with this bit is a curly one.
_CURLY = np.uint8(0x20)
# In these bits brackets differ from each other.
_BETWEEN = np.uint8(0x26)
_END = -1
# Looks at the grammar alone.
_SOUND = msgspec.json.Decoder(msgspec.Raw)


class BrokenJsonError(ValueError):
    """A file is no json; the text says what is wrong, and at which line and column."""


class NoJsonObjectError(ValueError):
    """A file is json, but no object."""


class JsonStream:
    """The object in a file.

    Args:
        file: from its beginning.
        block: bytes that are read at once.
    """

    def __init__(self, file: BinaryIO, block: int | None = None) -> None:
        self._file, self._size = file, block or _BLOCK
        self._data, self._at, self._ended = b"", 0, False
        # Where in the file and in memory that begins which a parser would have to see after `_before` to find the
        # first fault: in `_before` stands in short all that is passed.
        self._passed, self._anchor, self._before = 0, 0, b""
        self._within = b""
        self._fill(len(_BOM))
        if self._data.startswith(_BOM):
            self._at = self._anchor = len(_BOM)
        self._first = self._anchor

    def sections(self) -> Iterator[str]:
        """Each key in turn: before the next one its value is to be taken, by `pieces`, `value`, `glimpse` or `skip`.

        Raises:
            BrokenJsonError: if the file is no json.
            NoJsonObjectError: if it is no object.
        """
        if self._next() != _OPEN:
            self.skip()
            self._finish()
            raise NoJsonObjectError
        self._at, self._within = self._at + 1, b'{"":'
        closed = self._next() == _CLOSE
        while not closed:
            if self._next() != _QUOTE:
                raise self._fault()
            key = self.value()
            self._take(b":")
            yield str(key)
            closed = self._next() == _CLOSE
            if not closed:
                self._take(b",")
                self._pass(self._within + b"0,")
        self._at += 1
        self._finish()

    def is_list(self) -> bool:
        """Whether the value is a list."""
        return self._next() == _LIST

    def is_object(self) -> bool:
        """Whether the value is an object."""
        return self._next() == _OPEN

    def pieces(self) -> Iterator[bytes]:
        """The value, a list or an object, in pieces: each the json of a list (an object) of some of its elements.

        All but their brackets and their encoding is unchecked until `parse` or `check` has seen them, which must be
        done before the next piece is taken.

        Raises:
            BrokenJsonError: if it does not end, or is no text.
        """
        opening, closing = _BRACKETS[self._next()]
        # What a parser has seen that expects a further element.
        inside = self._within + (b"[0," if opening == _LIST else b'{"":0,')
        self._at += 1
        closed = self._next() == closing
        while not closed:
            end, closed = self._piece_end()
            text, self._at = self._data[self._at : end], end
            if not text:  # a comma, and nothing behind it
                raise self._fault()
            try:
                text.decode()  # else what is skipped is not looked at
            except UnicodeDecodeError:
                raise self._fault() from None
            yield b"%c%b%c" % (opening, text, closing)
            if not closed:
                self._take(b",")
                self._pass(inside)
        self._take(bytes([closing]))

    def parse(self, piece: bytes) -> Any:
        """What a piece says.

        Raises:
            BrokenJsonError: if it is broken.
        """
        try:
            # As deep as in the file: how deep anything may be is limited.
            return from_json(b"[%b]" % piece)[0] if self._within else from_json(piece)
        except ValueError:
            raise self._fault() from None

    def check(self, piece: bytes) -> None:
        """The same without its content."""
        try:
            _SOUND.decode(piece)
        except (ValueError, RecursionError):
            self.parse(piece)  # knows NaN

    def value(self) -> Any:
        """The value, of whatever kind; held whole.

        Raises:
            BrokenJsonError: if it is broken.
        """
        self._fill(self._size)
        while (end := self._value_end()) is None:
            self._more()
        text, self._at = self._data[self._at : end], end
        return self.parse(text)

    def glimpse(self) -> Any:
        """The value; of a long one enough of its beginning to tell what it is."""
        if self._next() not in _BRACKETS:
            return self.value()
        beginning = b"[]" if self.is_list() else b"{}"
        for number, piece in enumerate(self.pieces()):
            self.check(piece)
            if number == 0:
                beginning = piece
            elif len(beginning) < _GLIMPSE:
                beginning = b"%b,%b" % (beginning[:-1], piece[1:])
        if len(beginning) > _GLIMPSE:
            return from_json(beginning[:_GLIMPSE], allow_partial="trailing-strings")
        return from_json(beginning)

    def skip(self) -> None:
        """Pass over the value, which must be sound all the same."""
        if self._next() not in _BRACKETS:
            self.value()
            return
        for piece in self.pieces():
            self.check(piece)

    def _pass(self, before: bytes) -> None:
        """Let go what is before; a parser that goes on here has seen what says as much as `before`."""
        self._anchor, self._before = self._at, before

    def _fault(self) -> BrokenJsonError:
        """What is wrong first behind all that is passed."""
        while (found := self._visible_fault()) is None:
            if self._ended:
                raise AssertionError("sound json is taken for broken")
            self._fill(2 * max(len(self._data) - self._at, self._size))
        return found

    def _visible_fault(self) -> BrokenJsonError | None:
        """The same if it is in memory already."""
        try:
            from_json(self._before + self._data[self._anchor :])
        except ValueError as error:
            if self._ended or not str(error).startswith("EOF "):
                return BrokenJsonError(self._placed(str(error)))
        return None

    def _placed(self, told: str) -> str:
        """A parser's sentence on what is behind the anchor, with the line and the column in the file."""
        place = _PLACE.search(told)
        if place is None:
            return told
        lines, columns, at = 0, 0, self._first
        self._file.seek(at)
        while at < self._passed + self._anchor:
            text = self._file.read(min(_BLOCK, self._passed + self._anchor - at))
            lines += text.count(b"\n")
            newline = text.rfind(b"\n")
            columns = columns + len(text) if newline < 0 else len(text) - newline - 1
            at += len(text)
        line, column = int(place[1]), int(place[2])
        if line == 1:
            column += columns - len(self._before)
        return f"{told[: place.start()]}at line {lines + line} column {column}"

    def _fill(self, wanted: int) -> None:
        """Have so many bytes from here on, if the file has them."""
        lacking = wanted - (len(self._data) - self._at)
        if self._ended or lacking <= 0:
            return
        lacking = max(lacking, self._size)
        more = self._file.read(lacking)
        self._ended = len(more) < lacking
        self._data = self._data[self._anchor :] + more
        self._passed, self._at, self._anchor = self._passed + self._anchor, self._at - self._anchor, 0

    def _more(self) -> None:
        """Have twice as much of what does not end in memory, if there is no fault in it."""
        if self._ended or self._visible_fault() is not None:
            raise self._fault()
        self._fill(2 * max(len(self._data) - self._at, self._size))

    def _next(self) -> int:
        """The next byte that is no space, where it then stands; `_END` behind the last one."""
        while True:
            self._at = _space_end(self._data, self._at)
            if self._at < len(self._data):
                return self._data[self._at]
            if self._ended:
                return _END
            self._fill(self._size)

    def _take(self, byte: bytes) -> None:
        if self._next() != byte[0]:
            raise self._fault()
        self._at += 1

    def _finish(self) -> None:
        if self._next() != _END:
            raise self._fault()

    def _piece_end(self) -> tuple[int, bool]:
        """Where the elements end of which it is known what stands behind them, and whether the value ends there."""
        self._fill(self._size)
        while True:
            if self._next() != _END and (found := self._last_end()) is not None:
                return found
            self._more()

    def _last_end(self) -> tuple[int, bool] | None:
        places, depths = _brackets(np.frombuffer(self._data, np.uint8, offset=self._at))
        closing = np.flatnonzero(depths < 0)
        if len(closing):
            return self._at + int(places[closing[0]]), True
        for end in places[depths == 0][::-1].tolist():
            behind = _space_end(self._data, self._at + end + 1)
            follows = self._data[behind : behind + 1]
            if follows == b",":
                return behind, False
            if follows:
                raise self._fault()
        return None

    def _value_end(self) -> int | None:
        """Where the value ends that begins here, None if it goes on behind what is in memory."""
        first = self._next()
        if first in _BRACKETS:
            places, depths = _brackets(np.frombuffer(self._data, np.uint8, offset=self._at))
            ends = places[depths == 0]
            return self._at + int(ends[0]) + 1 if len(ends) else None
        if first == _QUOTE:
            found = _STRING.match(self._data, self._at)
            return None if found is None else found.end()
        found = _SCALAR.match(self._data, self._at) if first != _END else None
        if found is None:
            raise self._fault()
        return found.end() if self._ended or found.end() < len(self._data) else None


def _brackets(text: NDArray[np.uint8]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Where brackets stand outside of strings, and how many are open behind each; the text begins outside of one."""
    # What differs from a bracket in these bits alone is one, or a letter y or an underscore.
    places = np.flatnonzero((text | _BETWEEN) == (_LIST | _BETWEEN))
    # Behind an odd number of quotation marks it is within a string.
    places = places[np.searchsorted(_quotes(text), places) % 2 == 0]
    curly = text[places] | _CURLY
    steps = np.where(curly == _OPEN, 1, np.where(curly == _CLOSE, -1, 0))
    return places, np.cumsum(steps)


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
