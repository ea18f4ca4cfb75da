"""The content of a COCO json as it is meant: ids and sizes that some tools write as 1.0, boxes that only masks tell."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import msgspec
import numpy as np
from pydantic_core import from_json

from tood.data.formats.coco_columns import as_whole
from tood.data.formats.json_stream import JsonStream

IDS = {"images": ("id",), "annotations": ("id", "image_id", "category_id"), "categories": ("id",)}
SIDES = {"images": ("width", "height"), "annotations": (), "categories": ()}
_BLOCK = 1 << 20
# A larger mask is none: its runs would not fit any picture that can be decoded.
_LARGEST_MASK = 1 << 40


class _Marked(msgspec.Struct, gc=False):
    """What says that an annotation is one of an object."""

    bbox: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    segmentation: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET


_UNMARKED = (msgspec.UNSET, msgspec.UNSET)
_MARKED = msgspec.json.Decoder(list[_Marked])


def is_annotated(path: Path) -> bool:
    """Whether a json has any annotation to measure by; one that cannot be read counts, so that reading it tells why."""
    try:
        with path.open("rb") as file:
            stream = JsonStream(file)
            for key in stream.sections():
                if key != "annotations":
                    stream.skip()
                elif next(stream.pieces(), None) is not None if stream.is_list() else stream.glimpse():
                    return True
    except (OSError, ValueError):
        return True
    return False


def holds_boxes(path: Path) -> bool:
    """Whether a json is a COCO dataset for detection: not captions, panoptic segments, or a tool's own settings.

    It is one with lists of `images` and `categories`, and no annotations at all or one that has a box or a mask.
    """
    try:
        with path.open("rb") as file:
            # Read only if it may be one: there may be thousands of another kind, with pictures in them.
            if not _names_all(file, (b'"images"', b'"categories"')):
                return False
            file.seek(0)
            return _holds_boxes(JsonStream(file))
    except (OSError, ValueError):
        return False


def _names_all(file: BinaryIO, names: Sequence[bytes]) -> bool:
    """Whether all of some short texts are in a file."""
    kept, lacking = b"", set(names)
    while lacking and (block := file.read(_BLOCK)):
        text = kept + block
        lacking = {name for name in lacking if name not in text}
        kept = text[-max(map(len, names)) :]
    return not lacking


def _holds_boxes(stream: JsonStream) -> bool:
    lists, marked = {"images": False, "categories": False}, True
    for key in stream.sections():
        if key in lists:
            lists[key] = stream.is_list()
        if key != "annotations":
            stream.skip()
        elif stream.is_list():
            pieces = [_any_marked(piece, stream) for piece in stream.pieces()]
            marked = not pieces or any(pieces)
        else:
            marked = stream.glimpse() is None
    return all(lists.values()) and marked


def _any_marked(piece: bytes, stream: JsonStream) -> bool:
    try:
        return any((row.bbox, row.segmentation) != _UNMARKED for row in _MARKED.decode(piece))
    except (ValueError, RecursionError):
        rows = stream.parse(piece)
    return any(isinstance(row, dict) and ("bbox" in row or "segmentation" in row) for row in rows)


def make_plain(content: Any, path: Path) -> int:
    """Change parsed content in place to what it means, so that whoever reads it finds the same.

    Ids and sides that are whole as 7.0 or "7" (not "007", which may be another's) become whole numbers; annotations
    without an `id` are numbered; one without a `bbox` gets the enclosing box of its `segmentation`.

    Args:
        content: as parsed; of any form.
        path: the file, read once more where a box is missing.

    Returns:
        The number of boxes that were computed.
    """
    if not isinstance(content, dict):
        return 0
    for section, keys in IDS.items():
        for key in keys:
            make_whole(content.get(section), key)
    for key in SIDES["images"]:
        make_whole(content.get("images"), key)
    number_annotations(content)
    rows = content.get("annotations")
    if not isinstance(rows, list) or not _lack_boxes(rows):
        return 0
    return add_boxes(rows, from_json(path.read_bytes().removeprefix(b"\xef\xbb\xbf"))["annotations"])


def number_annotations(content: Any) -> int:
    """Give a number to each annotation that has no `id` at all, above those of the others; returns how many."""
    rows = content.get("annotations") if isinstance(content, dict) else None
    if not isinstance(rows, list):
        return 0
    lacking = [row for row in rows if type(row) is dict and row.get("id") is None]
    if lacking:
        make_whole(rows, "id")
        taken = [row["id"] for row in rows if type(row) is dict and type(row.get("id")) is int]
        for number, row in enumerate(lacking, start=max([0, *taken]) + 1):
            row["id"] = number
    return len(lacking)


def make_whole(rows: Any, key: str) -> None:
    """Change 7.0 and "7" to 7 in rows of any form."""
    if not isinstance(rows, list) or {type(row.get(key)) for row in rows if type(row) is dict} <= {int}:
        return
    for row in rows:
        if type(row) is dict and key in row:
            row[key] = as_whole(row[key])


def _lack_boxes(rows: list[Any]) -> list[int]:
    return [at for at, row in enumerate(rows) if type(row) is dict and row.get("bbox") in (None, [])]


def add_boxes(rows: list[Any], whole: list[Any]) -> int:
    """Give the enclosing box of its `segmentation` to each annotation without a `bbox`; returns how many got one.

    Args:
        rows: the annotations; changed in place.
        whole: the same with their segmentations.
    """
    added = 0
    for at in _lack_boxes(rows):
        box = _enclosing_box(whole[at].get("segmentation"))
        if box is not None:
            rows[at]["bbox"] = box
            added += 1
    return added


def _enclosing_box(segmentation: Any) -> list[float] | None:
    """x y width height of polygons or of a run-length mask; None where it is neither."""
    if isinstance(segmentation, dict):
        return _mask_box(segmentation)
    if not isinstance(segmentation, list):
        return None
    # VIA writes one polygon without a list around it.
    polygons = [segmentation] if segmentation and not isinstance(segmentation[0], list) else segmentation
    values = [value for polygon in polygons if isinstance(polygon, list) for value in polygon]
    if not values or any(not isinstance(polygon, list) or len(polygon) % 2 for polygon in polygons):
        return None
    if set(map(type, values)) - {int, float}:
        return None
    try:
        points = np.array(values, np.float64).reshape(-1, 2)
    except OverflowError:  # a whole number that no float is
        return None
    if not (np.abs(points) < 1e300).all():
        return None
    low, high = points.min(axis=0), points.max(axis=0)
    return [float(value) for value in (*low, *(high - low))]


def _mask_box(mask: Mapping[str, Any]) -> list[float] | None:
    """x y width height of a run-length mask: column after column, runs of noughts and of ones in turn."""
    counts, size = mask.get("counts"), mask.get("size")
    if isinstance(counts, str):
        counts = _decoded(counts)
    if not isinstance(counts, list) or not isinstance(size, list) or len(size) != 2:
        return None
    if any(type(value) is not int or not 0 <= value <= _LARGEST_MASK for value in (*counts, *size)) or not size[0]:
        return None
    edges = np.concatenate([[0], np.cumsum(np.array(counts, np.int64))])
    starts, ends = edges[1:-1:2], edges[2::2]
    starts, ends = starts[starts < ends], ends[starts < ends]
    if not len(starts):
        return None
    (left, top), (right, bottom) = divmod(starts, size[0]), divmod(ends - 1, size[0])
    # A run that goes on in the next column reaches from the top to the bottom.
    crosses = bool((left != right).any())
    x, y = int(left.min()), 0 if crosses else int(top.min())
    x2, y2 = int(right.max()) + 1, size[0] if crosses else int(bottom.max()) + 1
    return [float(x), float(y), float(x2 - x), float(y2 - y)]


def _decoded(text: str) -> list[int] | None:
    """The runs of COCO's compressed masks: 5 bits a letter; from the fourth on, the difference to the last but one."""
    counts: list[int] = []
    value = shift = 0
    for letter in text:
        bits = ord(letter) - 48
        if not 0 <= bits < 64 or shift > 60:
            return None
        value |= (bits & 0x1F) << shift
        shift += 5
        if bits & 0x20:
            continue
        if bits & 0x10:
            value -= 1 << shift
        counts.append(value + (counts[-2] if len(counts) > 2 else 0))
        value = shift = 0
    return None if shift else counts
