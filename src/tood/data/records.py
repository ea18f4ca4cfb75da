"""Image records, kept as columns: an object for each of millions of images would take gigabytes in each process."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path, PurePath
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

from tood.data.columns import Columns, PathColumn, ranges

_BLOCK = 1 << 12


@dataclass(frozen=True, eq=False)
class ImageRecord:
    """One image with its ground truth; the file itself is not open.

    Attributes:
        id: number of the image, unique in its split.
        path: the image file.
        width, height: pixels as stored in the file or, where `turned`, as its EXIF orientation turns it.
        boxes: [G, 4] float32, x1 y1 x2 y2 in pixels of that picture, inside it and of positive area.
        labels: [G] int64, index into the dataset's `categories`.
        crowd: [G] bool, True where the box stands for a group (in VOC: is `difficult`): ignored, never a positive.
            Which of the two it is tells `DetectionDataset.crowds_are_difficult`; evaluation treats them differently.
        areas: [G] float64, the annotation's area in square pixels (COCO's `area`, of the mask; else the box's).
        annotation_ids: [G] int64, unique in the split.
        file_name: name inside the split's image folder, with sub-folders; empty means `path.name`.
        turned: whether the picture is to be turned as its EXIF orientation says, because its labels were made so.
        size_from_file: whether width and height are of the file's header, as the labels tell none.
        orientation: of the file's EXIF, 1 to 8, where its header was read for its size; None if it was not.
    """

    id: int
    path: Path
    width: int
    height: int
    boxes: NDArray[np.float32]
    labels: NDArray[np.int64]
    crowd: NDArray[np.bool_]
    areas: NDArray[np.float64]
    annotation_ids: NDArray[np.int64]
    file_name: str = ""
    turned: bool = False
    size_from_file: bool = False
    orientation: int | None = None

    @property
    def name(self) -> str:
        """Name inside the split's image folder, with sub-folders."""
        return self.file_name or self.path.name

    def select(self, keep: NDArray[np.bool_]) -> ImageRecord:
        """The same image with only some of its boxes; `keep` is [G] bool."""
        return replace(
            self,
            boxes=self.boxes[keep],
            labels=self.labels[keep],
            crowd=self.crowd[keep],
            areas=self.areas[keep],
            annotation_ids=self.annotation_ids[keep],
        )


@dataclass(frozen=True, eq=False)
class Boxes(Columns):
    """The boxes of many images as columns; attributes as in `ImageRecord`, over all of them."""

    boxes: NDArray[np.float32]
    labels: NDArray[np.int64]
    crowd: NDArray[np.bool_]
    areas: NDArray[np.float64]
    annotation_ids: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, chosen: slice | NDArray[Any]) -> Boxes:
        return Boxes(
            self.boxes[chosen],
            self.labels[chosen],
            self.crowd[chosen],
            self.areas[chosen],
            self.annotation_ids[chosen],
        )

    @staticmethod
    def join(parts: Sequence[Boxes | ImageRecord]) -> Boxes:
        """Those of all parts, one after the other.

        Raises:
            ValueError: if the columns of a part differ in length.
        """
        for part in parts:
            others = (part.labels, part.crowd, part.areas, part.annotation_ids)
            if any(len(other) != len(part.boxes) for other in others):
                raise ValueError(f"the columns of boxes differ in length: {len(part.boxes)}, {[*map(len, others)]}")
        return Boxes(
            _joined(np.zeros((0, 4), np.float32), [part.boxes for part in parts]),
            _joined(np.zeros(0, np.int64), [part.labels for part in parts]),
            _joined(np.zeros(0, np.bool_), [part.crowd for part in parts]),
            _joined(np.zeros(0, np.float64), [part.areas for part in parts]),
            _joined(np.zeros(0, np.int64), [part.annotation_ids for part in parts]),
        )


def _joined(empty: NDArray[Any], parts: Sequence[NDArray[Any]]) -> NDArray[Any]:
    """One array of the kind of `empty`."""
    return np.concatenate([empty, *parts], dtype=empty.dtype, casting="unsafe")


@dataclass(frozen=True, eq=False)
class ImageRecords(Columns, Sequence[ImageRecord]):
    """The records of a split as columns; a record is made when it is asked for, its arrays are views of them.

    Attributes are those of `ImageRecord`, over all I images.

    Attributes:
        ids: [I] int64.
        paths: the files.
        name_lengths: [I] int32, bytes at the end of the path that are `file_name`; -1 where it is in `odd_names`.
        sizes: [I, 2] int32, width and height.
        turned, size_from_file: [I] bool.
        orientations: [I] int8, 0 for None.
        edges: [I + 1] int64, where each image's boxes begin in `boxes`, and the last one's end.
        boxes: of all images, one after the other.
        odd_names: by index, the names that are not the end of their path.
    """

    ids: NDArray[np.int64]
    paths: PathColumn
    name_lengths: NDArray[np.int32]
    sizes: NDArray[np.int32]
    turned: NDArray[np.bool_]
    size_from_file: NDArray[np.bool_]
    orientations: NDArray[np.int8]
    edges: NDArray[np.int64]
    boxes: Boxes
    odd_names: Mapping[int, str] = field(default_factory=dict)

    @staticmethod
    def of(records: Iterable[ImageRecord]) -> ImageRecords:
        """The columns of records that are taken one by one."""
        if isinstance(records, ImageRecords):
            return records
        blocks, records = [], iter(records)
        while block := list(islice(records, _BLOCK)):
            blocks.append(_columns(block))
        return ImageRecords.join(blocks)

    @staticmethod
    def join(parts: Sequence[ImageRecords]) -> ImageRecords:
        """Those of all parts, one after the other."""
        parts = parts or [_columns([])]
        if len(parts) == 1:
            return parts[0]
        starts = np.cumsum([0, *map(len, parts)]).tolist()
        return ImageRecords(
            np.concatenate([part.ids for part in parts]),
            PathColumn.of(text for part in parts for text in part.paths.texts()),
            np.concatenate([part.name_lengths for part in parts]),
            np.concatenate([part.sizes for part in parts]),
            np.concatenate([part.turned for part in parts]),
            np.concatenate([part.size_from_file for part in parts]),
            np.concatenate([part.orientations for part in parts]),
            np.concatenate([[0], np.cumsum(np.concatenate([part.counts for part in parts]))]),
            Boxes.join([part.boxes for part in parts]),
            {
                start + at: name
                for start, part in zip(starts, parts, strict=False)
                for at, name in part.odd_names.items()
            },
        )

    def __len__(self) -> int:
        return len(self.ids)

    @overload
    def __getitem__(self, index: int) -> ImageRecord: ...

    @overload
    def __getitem__(self, index: slice) -> ImageRecords: ...

    def __getitem__(self, index: int | slice) -> ImageRecord | ImageRecords:
        if isinstance(index, slice):
            return self.take(np.arange(len(self))[index])
        path = self.paths.text(index)
        at = int(index) % len(self)
        boxes = self.boxes[slice(*self.edges[at : at + 2].tolist())]
        width, height = self.sizes[at].tolist()
        return ImageRecord(
            id=int(self.ids[at]),
            path=Path(path),
            width=width,
            height=height,
            boxes=boxes.boxes,
            labels=boxes.labels,
            crowd=boxes.crowd,
            areas=boxes.areas,
            annotation_ids=boxes.annotation_ids,
            file_name=self._file_name(at, path),
            turned=bool(self.turned[at]),
            size_from_file=bool(self.size_from_file[at]),
            orientation=int(self.orientations[at]) or None,
        )

    def _file_name(self, at: int, path: str) -> str:
        length = int(self.name_lengths[at])
        return self.odd_names[at] if length < 0 else _tail(path, length)

    @property
    def counts(self) -> NDArray[np.int64]:
        """[I] boxes of each image."""
        return np.diff(self.edges)

    @property
    def image_at(self) -> NDArray[np.int64]:
        """[G] index of each box's image."""
        return np.repeat(np.arange(len(self)), self.counts)

    def names(self) -> Iterator[str]:
        """`ImageRecord.name` of each image."""
        for at, (path, length) in enumerate(zip(self.paths.texts(), self.name_lengths.tolist(), strict=True)):
            name = self.odd_names[at] if length < 0 else _tail(path, length)
            yield name or PurePath(path).name

    def places(self) -> list[Path]:
        """The folders that the names of the images start from, each once; names that lead elsewhere start from none."""
        plain = self.name_lengths >= 0
        extra = np.maximum(self.name_lengths - self.paths.bases.lengths, 0)
        pairs = np.unique(np.stack([self.paths.at[plain].astype(np.int64), extra[plain]], axis=1), axis=0)
        found = [Path(_front(self.paths.folders[folder], length)) for folder, length in pairs.tolist()]
        for at in np.flatnonzero(~plain).tolist():
            path, name = self.paths[at], PurePath(self[at].name)
            if name.is_absolute() or ".." in name.parts:
                continue
            spelled = len(name.parts) < len(path.parts) and _alike(PurePath(*path.parts[-len(name.parts) :]), name)
            # A picture that was found by its base name alone has others of its kind beside it.
            found.append(Path(*path.parts[: -len(name.parts)]) if spelled else path.parent)
        return list(dict.fromkeys(found))

    def take(self, indices: NDArray[np.int64]) -> ImageRecords:
        """The records at these indices, [J], in their order."""
        if len(indices) == len(self) and np.array_equal(indices, np.arange(len(self))):
            return self
        counts = self.counts[indices]
        odd = self.odd_names
        return ImageRecords(
            self.ids[indices],
            self.paths.take(indices),
            self.name_lengths[indices],
            self.sizes[indices],
            self.turned[indices],
            self.size_from_file[indices],
            self.orientations[indices],
            np.concatenate([[0], np.cumsum(counts)]),
            self.boxes[ranges(self.edges[:-1][indices], counts)],
            {new: odd[old] for new, old in enumerate(indices.tolist()) if old in odd} if odd else {},
        )

    def replaced(self, changed: Mapping[int, ImageRecord]) -> ImageRecords:
        """With other records at some indices."""
        if not changed:
            return self
        order = np.arange(len(self))
        where = np.array(list(changed), np.int64)
        order[where] = len(self) + np.arange(len(where))
        return ImageRecords.join([self, ImageRecords.of(changed.values())]).take(order)


def _columns(records: Sequence[ImageRecord]) -> ImageRecords:
    """The columns of a few records."""
    paths = [str(record.path) for record in records]
    tails = [name_length(path, record.file_name) for path, record in zip(paths, records, strict=True)]
    edges = np.cumsum([0, *(len(record.labels) for record in records)], dtype=np.int64)
    return ImageRecords(
        np.array([record.id for record in records], np.int64),
        PathColumn.of(paths),
        np.array(tails, np.int32),
        np.array([(record.width, record.height) for record in records], np.int32).reshape(-1, 2),
        np.array([record.turned for record in records], np.bool_),
        np.array([record.size_from_file for record in records], np.bool_),
        np.array([record.orientation or 0 for record in records], np.int8),
        edges,
        Boxes.join(records),
        {at: records[at].file_name for at, length in enumerate(tails) if length < 0},
    )


def name_length(path: str, name: str) -> int:
    """Bytes at the end of a path that are a name with `/` between folders; -1 if it does not end so."""
    local = name.replace("/", os.sep)
    if not local:
        return 0
    whole_parts = path.endswith(local) and path[: len(path) - len(local)].endswith(os.sep)
    # The name as it is must come back: on Windows a \ in it would not.
    return len(local.encode("utf-8", "surrogatepass")) if whole_parts and local.replace(os.sep, "/") == name else -1


def _alike(one: PurePath, other: PurePath) -> bool:
    """Whether two relative paths differ by nothing but how their letters are written."""
    first, second = (unicodedata.normalize("NFC", str(path)).casefold() for path in (one, other))
    return first == second


def _tail(path: str, length: int) -> str:
    """The last bytes of a path as a name with `/` between folders."""
    tail = path[-length:] if length else ""
    if not tail.isascii():
        tail = path.encode("utf-8", "surrogatepass")[-length:].decode("utf-8", "surrogatepass")
    return tail.replace(os.sep, "/")


def _front(folder: str, length: int) -> str:
    """A folder's text without its last bytes."""
    return folder.encode("utf-8", "surrogatepass")[: -length or None].decode("utf-8", "surrogatepass")
