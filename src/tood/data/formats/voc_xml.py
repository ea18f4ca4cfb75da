"""One Pascal VOC annotation file, in the variants that tools write."""

from __future__ import annotations

import codecs
import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tood.data.dataset import Problem

_CORNERS = ("xmin", "ymin", "xmax", "ymax")
_LARGEST_SIDE = 1 << 24
# A name alone, by which nothing can be defined or read.
_BARE_DOCTYPE = re.compile(rb"<!DOCTYPE\s+\w+\s*>")
_ENCODING = re.compile(rb"\s*<\?xml[^>]*?encoding\s*=\s*[\"'](?P<name>[\w.:-]+)[\"'][^>]*\?>")


@dataclass(frozen=True)
class VocAnnotation:
    """One xml: size (width, height) or None, the file name it tells, and its objects; `boxes` [G, 4] as in the file."""

    size: tuple[int, int] | None
    file_name: str
    names: tuple[str, ...]
    boxes: NDArray[np.float64]
    difficult: NDArray[np.bool_]
    problems: tuple[Problem, ...] = ()


def no_annotation(*problems: Problem) -> VocAnnotation:
    """What stands for a file that is not there or cannot be read."""
    return VocAnnotation(None, "", (), np.zeros((0, 4)), np.zeros(0, np.bool_), problems)


def read_voc_xml(path: Path) -> VocAnnotation:
    """One annotation file; what is wrong in it becomes an error in `problems`.

    Namespaces are passed over. An object without a `bndbox` but with a polygon gets the polygon's enclosing box, which
    is told; one that LabelMe marks as deleted is none.
    """
    file = str(path)

    def broken(message: str) -> VocAnnotation:
        return no_annotation(Problem("broken_file", file, message))

    try:
        data = path.read_bytes()
    except OSError as error:
        return broken(f"cannot be read ({error.strerror})")
    data = _BARE_DOCTYPE.sub(b"", data, count=1)
    # A document type may define entities that expand to gigabytes or read other files; UTF-16 (zero bytes) hides one.
    if b"<!DOCTYPE" in data or b"<!ENTITY" in data or b"\0" in data:
        return broken(
            "has a document type (DOCTYPE) or is not plain 8-bit xml: refused, as no VOC annotation needs one"
        )
    try:
        tree = ElementTree.fromstring(_decoded(data))
    except ElementTree.ParseError as error:
        if data.lstrip().startswith(b"<") and not _is_utf8(data):
            return broken(
                "is not UTF-8, and does not say what else: save it as UTF-8, or name its encoding in a first line, as "
                '`<?xml version="1.0" encoding="GBK"?>`'
            )
        return broken(f"broken xml: {error}")
    except (ValueError, LookupError, RecursionError) as error:
        return broken(f"cannot be read as xml ({error})")
    for element in tree.iter():
        element.tag = element.tag.rpartition("}")[2]
    if tree.tag != "annotation" and tree.find("object") is None and tree.find("filename") is None:
        return broken(f"is xml, but no VOC annotation: its root is <{tree.tag}>")
    problems: list[Problem] = []
    names, boxes, difficult, outlined = [], [], [], 0
    for number, item in enumerate(tree.findall("object"), start=1):
        if (item.findtext("deleted") or "").strip() == "1":
            continue
        name = (item.findtext("name") or "").strip()
        texts = [item.findtext(f"bndbox/{corner}") for corner in _CORNERS]
        polygon = None if item.find("bndbox") is not None else item.find("polygon")
        try:
            corners = [float(text or "") for text in texts] if polygon is None else _enclosing_box(polygon)
        except ValueError:
            told = dict(zip(_CORNERS, texts, strict=True))
            problems.append(Problem("wrong_type", file, f"object {number} has no box of four numbers: {told}"))
            continue
        if not name:
            problems.append(Problem("wrong_type", file, f"object {number} has no name"))
            continue
        outlined += polygon is not None
        names.append(name)
        boxes.append(corners)
        difficult.append((item.findtext("difficult") or "0").strip() not in ("0", "", "Unspecified", "false", "False"))
    if outlined:
        message = f"{outlined} of its objects have a polygon and no bndbox: the polygon's enclosing box is taken"
        problems.append(Problem("box_from_polygon", file, message, severity="warning"))
    return VocAnnotation(
        _size(tree),
        _file_name(tree),
        tuple(names),
        np.array(boxes, np.float64).reshape(-1, 4),
        np.array(difficult, np.bool_).reshape(-1),
        tuple(problems),
    )


def _decoded(data: bytes) -> bytes | str:
    """The text of an xml in an encoding of several bytes a letter, which the parser knows not; any other as it is."""
    found = _ENCODING.match(data)
    if found is None:
        return data
    try:
        name = codecs.lookup(found["name"].decode()).name
    except LookupError:
        return data
    # The standard's superset: tools write letters that the older ones have not.
    name = {"gb2312": "gb18030", "gbk": "gb18030", "shift_jis": "cp932", "euc_kr": "cp949"}.get(name, name)
    if not name.startswith(("gb", "big5", "cp932", "cp949", "euc", "iso2022", "hz", "johab", "shift")):
        return data
    return data[found.end() :].decode(name)


def _is_utf8(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True


def _file_name(tree: ElementTree.Element) -> str:
    """The picture's name that the file tells, with `/` between folders; from `path` where `filename` is empty."""
    told = (tree.findtext("filename") or "").strip().replace("\\", "/")
    return told or (tree.findtext("path") or "").strip().replace("\\", "/").rpartition("/")[2]


def _enclosing_box(polygon: ElementTree.Element) -> list[float]:
    """xmin ymin xmax ymax of a polygon written as `<pt><x/><y/></pt>...` (LabelMe) or `<x1/><y1/><x2/><y2/>...`.

    Raises:
        ValueError: if it has no point, or one that is not two numbers.
    """
    told = [(axis, float(text or "")) for axis, text in _coordinates(polygon)]
    xs, ys = ([value for own, value in told if own == axis] for axis in "xy")
    if not xs or len(xs) != len(ys):
        raise ValueError("no points")
    return [min(xs), min(ys), max(xs), max(ys)]


def _coordinates(polygon: ElementTree.Element) -> Iterator[tuple[str, str | None]]:
    for element in polygon.iter():
        if element.tag[:1] in ("x", "y") and (element.tag[1:] == "" or element.tag[1:].isdigit()):
            yield element.tag[:1], element.text


def _size(tree: ElementTree.Element) -> tuple[int, int] | None:
    """(width, height) that the file tells; None where it tells none, or nought as some tools do."""
    try:
        width, height = (int(float(tree.findtext(f"size/{side}") or 0)) for side in ("width", "height"))
    except (ValueError, OverflowError):
        return None
    return (width, height) if 1 <= width <= _LARGEST_SIDE and 1 <= height <= _LARGEST_SIDE else None
