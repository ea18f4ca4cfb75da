"""The writing of annotations: a COCO json, YOLO txt files, VOC xml files."""

from __future__ import annotations

import json
import shutil
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray

from tood.data.dataset import Category, ImageRecord
from tood.whole_file import whole_file

# Boxes that are looked at, and letters that are copied, at once.
_BLOCK, _COPIED = 1 << 20, 1 << 16


def write_coco(
    path: Path, categories: Sequence[Category], images: Iterable[ImageRecord], *, description: str = ""
) -> None:
    """Write a COCO annotation json.

    Image ids, annotation ids, category ids, areas and crowd flags are kept; boxes are written as x y width height to 4
    decimals; `file_name` is the record's `name`. The image files are the caller's business.

    Args:
        path: the json to write; its folder is made if it is not there. Never left half-written.
        categories: the classes that the labels index.
        images: the records.
        description: goes into the json's `info`.
    """
    ids = [category.id for category in categories]
    classes = [{"id": category.id, "name": category.name} for category in categories]
    # Written as it is made: of millions of images neither the objects nor the text would fit into memory.
    with (
        whole_file(path) as temporary,
        temporary.open("w", encoding="utf-8") as file,
        TemporaryFile("w+", encoding="utf-8", dir=temporary.parent) as annotations,
    ):
        file.write(f'{{"info": {json.dumps({"description": description})}, "images": [')
        before = {"image": "", "annotation": ""}
        for image in images:
            row = {"id": image.id, "file_name": image.name, "width": image.width, "height": image.height}
            file.write(before["image"] + json.dumps(row))
            before["image"] = ", "
            if rows := _annotation_rows(image, ids):
                annotations.write(before["annotation"] + json.dumps(rows)[1:-1])
                before["annotation"] = ", "
        file.write('], "annotations": [')
        annotations.seek(0)
        shutil.copyfileobj(annotations, file, _COPIED)
        file.write(f'], "categories": {json.dumps(classes)}}}')


def _annotation_rows(image: ImageRecord, category_ids: Sequence[int]) -> list[dict[str, Any]]:
    """COCO's annotations of an image."""
    corners = image.boxes.astype(np.float64)
    corners[:, 2:] -= corners[:, :2]  # x y w h
    columns = zip(
        image.annotation_ids.tolist(),
        image.labels.tolist(),
        corners.round(4).tolist(),
        image.areas.round(4).tolist(),
        image.crowd.tolist(),
        strict=True,
    )
    return [
        {
            "id": number,
            "image_id": image.id,
            "category_id": category_ids[label],
            "bbox": box,
            "area": area,
            "iscrowd": int(crowd),
            "segmentation": [],
        }
        for number, label, box, area, crowd in columns
    ]


def yolo_labels(image: ImageRecord) -> str:
    """Lines `class cx cy w h` of every box that is no crowd, in parts of the image."""
    record = image.select(~image.crowd)
    corners = record.boxes.astype(np.float64) / np.array([image.width, image.height] * 2, np.float64)
    centres, sides = (corners[:, :2] + corners[:, 2:]) / 2, corners[:, 2:] - corners[:, :2]
    # Ten decimals place an edge to a thousandth of a pixel in any image that can be decoded.
    return "".join(
        f"{label} {x:.10f} {y:.10f} {w:.10f} {h:.10f}\n"
        for label, (x, y), (w, h) in zip(record.labels.tolist(), centres.tolist(), sides.tolist(), strict=True)
    )


def yolo_yaml(categories: Sequence[Category], folders: Mapping[str, str], exif: str | None = None) -> str:
    """The data.yaml of a YOLO folder.

    Args:
        categories: the classes.
        folders: the image folders of the splits.
        exif: `stored` or `turned`, what the labels of pictures with an EXIF orientation were made on; None if there is
            no such picture.
    """
    names = {label: category.name for label, category in enumerate(categories)}
    # No `path`: every reader then starts from the folder of the yaml itself.
    text: str = yaml.safe_dump(
        {**folders, **({"exif": exif} if exif else {}), "names": names}, sort_keys=False, allow_unicode=True
    )
    return text


def voc_xml(image: ImageRecord, file_name: str, categories: Sequence[Category]) -> bytes:
    """Annotation file of an image; corners are counted from 1 and inside the box, crowds are `difficult`."""
    root = ElementTree.Element("annotation")
    _child(root, "folder", "JPEGImages")
    _child(root, "filename", file_name)
    size = ElementTree.SubElement(root, "size")
    for key, value in (("width", image.width), ("height", image.height), ("depth", 3)):
        _child(size, key, str(value))
    _child(root, "segmented", "0")
    for box, label, crowd in zip(image.boxes.tolist(), image.labels.tolist(), image.crowd.tolist(), strict=True):
        item = ElementTree.SubElement(root, "object")
        _child(item, "name", categories[label].name)
        _child(item, "pose", "Unspecified")
        _child(item, "truncated", "0")
        _child(item, "difficult", str(int(crowd)))
        bndbox = ElementTree.SubElement(item, "bndbox")
        for key, corner in zip(("xmin", "ymin", "xmax", "ymax"), (box[0] + 1, box[1] + 1, box[2], box[3]), strict=True):
            _child(bndbox, key, _decimal(corner))
    ElementTree.indent(root, "\t")
    text: bytes = ElementTree.tostring(root, encoding="utf-8")
    return text + b"\n"


def voc_holds(boxes: NDArray[np.float32]) -> NDArray[np.bool_]:
    """[G] whether VOC can hold each of [G, 4] boxes: to its reader one of at most a pixel's side has no area."""
    held = np.zeros(len(boxes), np.bool_)
    for start in range(0, len(boxes), _BLOCK):
        # Measured on the numbers as they are written, to 4 decimals.
        corners = np.round(boxes[start : start + _BLOCK].astype(np.float64), 4)
        held[start : start + _BLOCK] = (corners[:, 2:] - corners[:, :2] > 1.0001).all(axis=1)
    return held


def xml_can_hold(text: str) -> bool:
    """Whether a name survives xml: no control characters, no blanks at its ends."""
    return text == text.strip() and all(ord(letter) >= 32 and not 0xD800 <= ord(letter) <= 0xDFFF for letter in text)


def write_text(path: Path, text: str) -> None:
    """Write a file of a folder that is being built, and its parent folders."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def _child(parent: ElementTree.Element, tag: str, text: str) -> None:
    ElementTree.SubElement(parent, tag).text = text


def _decimal(value: float) -> str:
    """As a whole number where it is one, as VOC's tools want it; else to 4 decimals."""
    return f"{value:.4f}".rstrip("0").rstrip(".")
