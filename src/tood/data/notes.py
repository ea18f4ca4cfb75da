"""What is found in pictures while they are decoded and is worth telling once, with its count."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from functools import reduce
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from tood.data.images import DecodedImage
from tood.processes import Processes

log = logging.getLogger(__name__)

_CUT, _SHALLOW, _NARROW = 1, 2, 4

NARROW = (
    "the values fill a small part of the range of their bits, and few grey levels are left of them in 8 bits; to keep "
    "more, save 8-bit pictures with the range in use spread to 0..255, the same for all pictures"
)


class ImageFile(Protocol):
    """What is to be known of a picture to speak of it: its number in the dataset and its file (`ImageRecord`)."""

    @property
    def id(self) -> int:
        """The picture's number, unique in its split."""

    @property
    def path(self) -> Path:
        """The picture's file."""


class PictureNotes:
    """Pictures that were decoded as far as they go, by fewer bits than their files have room for, or to few levels.

    A picture is told of once, however often and by whichever of the loading processes it is decoded.

    Args:
        ids: [I] int64, the pictures' numbers.
        paths: their files.
    """

    def __init__(self, ids: NDArray[np.int64], paths: Sequence[Path]) -> None:
        self.paths = paths
        # In shared memory: loading processes find, the trainer tells.
        self.ids, self.order = torch.from_numpy(ids).sort(stable=True)
        self.found = torch.zeros(len(ids), dtype=torch.uint8)
        self.found.share_memory_()  # type: ignore[no-untyped-call]
        self.whole = torch.zeros_like(self.found)
        self.whole.share_memory_()  # type: ignore[no-untyped-call]
        self.told = torch.zeros_like(self.found)

    def add(self, record: ImageFile, decoded: DecodedImage) -> None:
        """Notes what is to be told of a picture."""
        row, value = self._row(record), note_of(decoded)
        if value:
            self.found[row] |= value
        if not value & _CUT:
            self.whole[row] = 1

    def is_whole(self, record: ImageFile) -> bool:
        """Whether a picture was decoded before, by any process, and nothing of it lacked."""
        return bool(self.whole[self._row(record)])

    def _row(self, record: ImageFile) -> int:
        return int(self.order[torch.searchsorted(self.ids, record.id)])

    def tell(self, processes: Processes = Processes()) -> None:  # noqa: B008 - frozen
        """Says in the log what was found since the last time.

        Args:
            processes: that share the pictures; all of them call this, the main one says what all have found.
        """
        found = reduce(torch.bitwise_or, processes.gather(self.found.clone()))
        new = found & ~self.told
        self.told |= new
        if not processes.main:
            return
        for value in (_CUT, _SHALLOW, _NARROW):
            rows = torch.nonzero(new & value).ravel().tolist()
            if rows:
                log.warning("%s", sentence(value, len(rows), str(self.paths[rows[0]])))


class SourceNotes:
    """What `PictureNotes` tells, of pictures that belong to no dataset and come one by one, by their names."""

    def __init__(self) -> None:
        self.found: dict[int, list[str]] = {_CUT: [], _SHALLOW: [], _NARROW: []}

    def add(self, name: str, decoded: DecodedImage) -> None:
        """Notes what is to be told of a picture."""
        value = note_of(decoded)
        for kind, names in self.found.items():
            if value & kind:
                names.append(name)

    def tell(self) -> None:
        """Says in the log what was found."""
        for kind, names in self.found.items():
            if names:
                log.warning("%s", sentence(kind, len(names), names[0]))
                names.clear()


def note_of(decoded: DecodedImage) -> int:
    """What is to be told of a picture, 0 if nothing."""
    shallow = decoded.bits is not None and decoded.bits < 16
    return _CUT * (decoded.rows is not None) + _SHALLOW * shallow + _NARROW * (decoded.levels is not None)


def sentence(kind: int, count: int, name: str) -> str:
    """What is said of so many pictures, of which one is named."""
    such = f"{name}" if count == 1 else f"{count} pictures, such as {name}"
    if kind == _CUT:
        what = "the end of the file is missing or damaged"
        return f"{such}: {what}, decoded as far as it goes (at least 90 % of the rows)"
    if kind == _NARROW:
        return f"{such}: {NARROW}"
    return f"{such}: of 16 bits a channel fewer are used, scaled to 8 bits by what the file holds"
