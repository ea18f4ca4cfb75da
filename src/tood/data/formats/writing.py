"""The writing of annotations: a COCO json, YOLO txt files, VOC xml files."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray

from tood.data.dataset import Category, ImageRecord
from tood.whole_file import whole_file


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
    image_rows: list[dict[str, Any]] = []
    annotation_rows: list[dict[str, Any]] = []
    ids = [category.id for category in categories]
    for image in images:
        image_rows.append({"id": image.id, "file_name": image.name, "width": image.width, "height": image.height})
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
        annotation_rows.extend(
            {
                "id": number,
                "image_id": image.id,
                "category_id": ids[label],
                "bbox": box,
                "area": area,
                "iscrowd": int(crowd),
                "segmentation": [],
            }
            for number, label, box, area, crowd in columns
        )
    whole = {
        "info": {"description": description},
        "images": image_rows,
        "annotations": annotation_rows,
        "categories": [{"id": category.id, "name": category.name} for category in categories],
    }
    with whole_file(path) as temporary:
        temporary.write_text(json.dumps(whole), encoding="utf-8")


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


def voc_holds(image: ImageRecord) -> NDArray[np.bool_]:
    """[G] whether VOC can hold each box: as its reader has it, one of at most a pixel's width or height has no area."""
    # Measured on the numbers as they are written, to 4 decimals.
    corners = np.round(image.boxes.astype(np.float64), 4)
    return np.asarray((corners[:, 2:] - corners[:, :2] > 1.0001).all(axis=1))


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
