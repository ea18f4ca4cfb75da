"""Many texts and paths as a few flat arrays: for millions of them, where an object each would take gigabytes."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from itertools import islice, pairwise
from pathlib import Path
from typing import Any, overload

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

# Texts that are taken apart or put together at once.
_BLOCK = 1 << 16
# Names of files need not be Unicode: Python then has lone surrogates in them.
_CODING = ("utf-8", "surrogatepass")


def ranges(starts: NDArray[np.int64], counts: NDArray[np.int64]) -> NDArray[np.int64]:
    """[sum of counts] the numbers `starts[i]`, `starts[i] + 1`, ... of all ranges, one after the other."""
    before = np.cumsum(counts) - counts
    found: NDArray[np.int64] = np.repeat(starts - before, counts)
    found += np.arange(len(found))
    return found


@dataclass(frozen=True, eq=False)
class Columns:
    """What is made of arrays, one row of each for an item.

    A loading process that is forked shares the arrays; one that is spawned gets them in shared memory, once for all.
    """

    @cached_property
    def _tensors(self) -> dict[str, Tensor]:
        """The arrays as tensors on the same memory; who first hands them to a process moves them to shared memory."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        arrays = {name: value for name, value in values.items() if isinstance(value, np.ndarray)}
        return {name: torch.from_numpy(_writable(array)) for name, array in arrays.items()}

    def __reduce__(self) -> tuple[Any, ...]:
        # As tensors, which multiprocessing hands over as they are where it would copy arrays.
        names = [field.name for field in fields(self)]
        return _rebuilt, (type(self), [self._tensors.get(name, getattr(self, name)) for name in names])


def _rebuilt(kind: Callable[..., Columns], values: Sequence[Any]) -> Columns:
    return kind(*(value.numpy() if isinstance(value, Tensor) else value for value in values))


def _writable(array: NDArray[Any]) -> NDArray[Any]:
    """An array that PyTorch takes without a warning."""
    return np.ascontiguousarray(array) if array.flags.writeable else array.copy()


@dataclass(frozen=True, eq=False)
class TextColumn(Columns, Sequence[str]):
    """Texts, one after the other in one block of bytes.

    Attributes:
        data: uint8, UTF-8 of all of them.
        edges: [n + 1] int64, where each begins in `data`, and the last one's end.
    """

    data: NDArray[np.uint8]
    edges: NDArray[np.int64]

    @staticmethod
    def of(texts: Iterable[str]) -> TextColumn:
        """A column of any texts, taken one by one."""
        data, lengths, texts = bytearray(), [np.zeros(1, np.int64)], iter(texts)
        while block := [text.encode(*_CODING) for text in islice(texts, _BLOCK)]:
            data += b"".join(block)
            lengths.append(np.fromiter(map(len, block), np.int64, len(block)))
        return TextColumn(np.frombuffer(data, np.uint8), np.cumsum(np.concatenate(lengths)))

    def __len__(self) -> int:
        return len(self.edges) - 1

    @overload
    def __getitem__(self, index: int) -> str: ...

    @overload
    def __getitem__(self, index: slice) -> TextColumn: ...

    def __getitem__(self, index: int | slice) -> str | TextColumn:
        if isinstance(index, slice):
            return self.take(np.arange(len(self))[index])
        at = _position(index, len(self))
        return self.data[self.edges[at] : self.edges[at + 1]].tobytes().decode(*_CODING)

    def __iter__(self) -> Iterator[str]:
        for start in range(0, len(self), _BLOCK):
            edges = self.edges[start : start + _BLOCK + 1]
            block = self.data[edges[0] : edges[-1]].tobytes()
            ends = (edges - edges[0]).tolist()
            for low, high in pairwise(ends):
                yield block[low:high].decode(*_CODING)

    @property
    def lengths(self) -> NDArray[np.int64]:
        """[n] bytes of each text."""
        return np.diff(self.edges)

    def take(self, indices: NDArray[np.int64]) -> TextColumn:
        """The texts at these indices, [m], in their order."""
        lengths, blocks = self.lengths[indices], []
        for start in range(0, len(indices), _BLOCK):
            block = slice(start, start + _BLOCK)
            blocks.append(self.data[ranges(self.edges[:-1][indices[block]], lengths[block])])
        data = np.concatenate([np.zeros(0, np.uint8), *blocks])
        return TextColumn(data, np.concatenate([[0], np.cumsum(lengths)]))


@dataclass(frozen=True, eq=False)
class PathColumn(Columns, Sequence[Path]):
    """Paths as their folders, each once, and their last parts.

    Attributes:
        folders: text of each folder, with the separator at its end.
        at: [n] int32, index of each path's folder.
        bases: last part of each path.
    """

    folders: tuple[str, ...]
    at: NDArray[np.int32]
    bases: TextColumn

    @staticmethod
    def of(texts: Iterable[str]) -> PathColumn:
        """A column of paths as `str(path)` gives them, taken one by one."""
        folders: dict[str, int] = {}
        places: list[NDArray[np.int32]] = []
        own: list[int] = []

        def bases() -> Iterator[str]:
            for text in texts:
                cut = text.rfind(os.sep) + 1
                own.append(folders.setdefault(text[:cut], len(folders)))
                if len(own) == _BLOCK:
                    places.append(np.array(own, np.int32))
                    own.clear()
                yield text[cut:]

        column = TextColumn.of(bases())
        return PathColumn(tuple(folders), np.concatenate([*places, np.array(own, np.int32)]), column)

    def __len__(self) -> int:
        return len(self.at)

    @overload
    def __getitem__(self, index: int) -> Path: ...

    @overload
    def __getitem__(self, index: slice) -> PathColumn: ...

    def __getitem__(self, index: int | slice) -> Path | PathColumn:
        if isinstance(index, slice):
            return self.take(np.arange(len(self))[index])
        return Path(self.text(index))

    def __iter__(self) -> Iterator[Path]:
        return map(Path, self.texts())

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Sequence) or len(self) != len(other):
            return False
        return all(own == its for own, its in zip(self, other, strict=True))

    __hash__ = None  # type: ignore[assignment]  # as a list

    def text(self, index: int) -> str:
        """A path as text."""
        at = _position(index, len(self))
        return self.folders[int(self.at[at])] + self.bases[at]

    def texts(self) -> Iterator[str]:
        """All paths as texts."""
        for start, at in _blocks(self.at):
            bases = TextColumn(self.bases.data, self.bases.edges[start : start + len(at) + 1])
            for folder, base in zip(at.tolist(), bases, strict=True):
                yield self.folders[folder] + base

    def by_folder(self) -> Iterator[tuple[Path, NDArray[np.int64]]]:
        """Each folder that has any of the paths, with their indices."""
        order = np.argsort(self.at, kind="stable")
        edges = np.searchsorted(self.at[order], np.arange(len(self.folders) + 1))
        for number, folder in enumerate(self.folders):
            own = order[edges[number] : edges[number + 1]]
            if len(own):
                yield Path(folder), own

    def take(self, indices: NDArray[np.int64]) -> PathColumn:
        """The paths at these indices, [m], in their order."""
        return PathColumn(self.folders, self.at[indices], self.bases.take(indices))


def _blocks(values: NDArray[np.int32]) -> Iterator[tuple[int, NDArray[np.int32]]]:
    """An array in pieces, each with its place."""
    for start in range(0, len(values), _BLOCK):
        yield start, values[start : start + _BLOCK]


def _position(index: int, count: int) -> int:
    """An index from 0, as a sequence of so many takes it.

    Raises:
        IndexError: if there is none.
    """
    if not -count <= index < count:
        raise IndexError(f"there is no item {index} of {count}")
    return index + count if index < 0 else int(index)
