"""What is found in pictures while they are decoded and is worth telling once, with its count."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from functools import reduce
from typing import TYPE_CHECKING

import torch

from tood.data.images import DecodedImage
from tood.processes import Processes

if TYPE_CHECKING:
    from tood.data.dataset import ImageRecord

log = logging.getLogger(__name__)

_CUT, _SHALLOW = 1, 2


class PictureNotes:
    """Pictures that were decoded as far as they go, or by fewer bits than their files have room for.

    A picture is told of once, however often and by whichever of the loading processes it is decoded.

    Args:
        records: the dataset's.
    """

    def __init__(self, records: Sequence[ImageRecord]) -> None:
        self.paths = [str(record.path) for record in records]
        self.rows = {record.id: row for row, record in enumerate(records)}
        # In shared memory: loading processes find, the trainer tells.
        self.found = torch.zeros(len(records), dtype=torch.uint8)
        self.found.share_memory_()  # type: ignore[no-untyped-call]
        self.told = torch.zeros_like(self.found)

    def add(self, record: ImageRecord, decoded: DecodedImage) -> None:
        """Notes what is to be told of a picture."""
        value = note_of(decoded)
        if value:
            self.found[self.rows[record.id]] |= value

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
        for value in (_CUT, _SHALLOW):
            rows = torch.nonzero(new & value).ravel().tolist()
            if rows:
                log.warning("%s", sentence(value, len(rows), self.paths[rows[0]]))


class SourceNotes:
    """The same of pictures that come one by one, by their names."""

    def __init__(self) -> None:
        self.found: dict[int, list[str]] = {_CUT: [], _SHALLOW: []}

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
    return _CUT * (decoded.rows is not None) + _SHALLOW * shallow


def sentence(kind: int, count: int, name: str) -> str:
    """What is said of so many pictures, of which one is named."""
    such = f"{name}" if count == 1 else f"{count} pictures, such as {name}"
    if kind == _CUT:
        return f"{such}: the end of the file is missing, decoded as far as it goes (at least 90 % of the rows)"
    return f"{such}: of 16 bits a channel fewer are used, scaled to 8 bits by what the file holds"
