"""Small datasets on disk for the tests of the data room."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np


def write_image(path: Path, width: int = 64, height: int = 48, grey: bool = False, seed: int = 0) -> Path:
    """A noisy png or jpg of the size."""
    path.parent.mkdir(parents=True, exist_ok=True)
    shape = (height, width) if grey else (height, width, 3)
    assert cv2.imwrite(str(path), np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8))
    return path


def coco(images: Sequence[Mapping[str, Any]], annotations: Sequence[Any], names: Mapping[int, str]) -> dict[str, Any]:
    """The content of a COCO json."""
    return {
        "images": list(images),
        "annotations": list(annotations),
        "categories": [{"id": number, "name": name} for number, name in names.items()],
    }


def image_row(number: int, name: str = "", width: int = 64, height: int = 48) -> dict[str, Any]:
    """One entry of `images`."""
    return {"id": number, "file_name": name or f"{number}.png", "width": width, "height": height}


def box_row(
    number: int, image: int, box: Sequence[Any] = (4, 5, 20, 10), category: int = 3, **more: Any
) -> dict[str, Any]:
    """One entry of `annotations`; `box` is x y width height."""
    return {"id": number, "image_id": image, "category_id": category, "bbox": list(box), **more}


def write_coco_folder(root: Path, content: Mapping[str, Any], split: str = "train", images: bool = True) -> Path:
    """The json of a split with its images; returns the json's path."""
    path = root / "annotations" / f"instances_{split}2017.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))
    if images:
        for row in content["images"]:
            write_image(root / f"{split}2017" / row["file_name"], row["width"], row["height"], seed=row["id"])
    return path


def usual_coco() -> dict[str, Any]:
    """Three images (one without an object), gapped category ids, a crowd."""
    return coco(
        [image_row(7), image_row(900_000_000_012, "sub/a.png", 80, 60), image_row(3)],
        [
            box_row(11, 7, area=123.0),
            box_row(
                5, 900_000_000_012, (10.25, 0, 20.5, 60), 90, iscrowd=1, segmentation={"counts": [1], "size": [1, 1]}
            ),
            box_row(6, 7, (0, 0, 64, 48), 90, segmentation=[[0, 0, 1, 1, 2, 2]]),
        ],
        {90: "tooth brush", 3: "cat"},
    )


def voc_xml(name: str, objects: Sequence[tuple[str, Sequence[float], int]], width: int = 64, height: int = 48) -> str:
    """One annotation; objects are (name, xmin ymin xmax ymax, difficult)."""
    items = "".join(
        f"<object><name>{label}</name><difficult>{difficult}</difficult><bndbox><xmin>{box[0]}</xmin>"
        f"<ymin>{box[1]}</ymin><xmax>{box[2]}</xmax><ymax>{box[3]}</ymax></bndbox></object>"
        for label, box, difficult in objects
    )
    size = f"<size><width>{width}</width><height>{height}</height><depth>3</depth></size>"
    return f"<annotation><filename>{name}.jpg</filename>{size}{items}</annotation>"


def write_voc_folder(root: Path, xmls: Mapping[str, str], splits: Mapping[str, Sequence[str]]) -> Path:
    """A VOC folder with an image for each xml."""
    (root / "ImageSets" / "Main").mkdir(parents=True)
    (root / "Annotations").mkdir()
    for number, (name, text) in enumerate(xmls.items()):
        (root / "Annotations" / f"{name}.xml").write_text(text)
        write_image(root / "JPEGImages" / f"{name}.jpg", seed=number)
    for split, names in splits.items():
        (root / "ImageSets" / "Main" / f"{split}.txt").write_text("\n".join(names) + "\n")
    return root


def write_yolo_folder(root: Path, labels: Mapping[str, str | None], yaml_text: str = "") -> Path:
    """A YOLO folder; keys of `labels` are such as `train/a`, None writes no label file."""
    for number, (name, text) in enumerate(labels.items()):
        write_image(root / "images" / f"{name}.png", seed=number)
        if text is not None:
            path = root / "labels" / f"{name}.txt"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
    (root / "data.yaml").write_text(yaml_text or "train: images/train\nval: images/val\nnames: [cat, dog]\n")
    return root
