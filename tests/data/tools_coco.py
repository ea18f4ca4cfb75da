"""COCO jsons in the shapes that well-known tools write, each by a function of the tool's name.

Every function writes a dataset below `root` and returns what must be read from it, as those of `tools_voc` do; what is
ignored is a crowd.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from data.tools_voc import Expected, Object
from dataset_files import write_image

CAT: Object = ("cat", 10, 5, 30, 25, False)
DOG: Object = ("dog", 0, 0, 64, 48, False)
CROWD: Object = ("dog", 40, 10, 60, 40, True)
PLACED = (("a.jpg", [CAT]), ("b.jpg", [DOG, CROWD]))


def _write(path: Path, content: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content), encoding="utf-8")


def _polygon(item: Object) -> list[list[float]]:
    _, x1, y1, x2, y2, _ = item
    return [[x1, y1, x2, y1, x2, y2, x1, y2]]


def _annotation(number: Any, image: Any, category: Any, item: Object, **more: Any) -> dict[str, Any]:
    _, x1, y1, x2, y2, crowd = item
    box = {"bbox": [x1, y1, x2 - x1, y2 - y1], "area": (x2 - x1) * (y2 - y1), "iscrowd": int(crowd)}
    return {"id": number, "image_id": image, "category_id": category, "segmentation": _polygon(item), **box, **more}


def _content(
    placed: Sequence[tuple[str, Sequence[Object]]], first: int = 1, categories: Sequence[str] = ("cat", "dog")
) -> dict[str, Any]:
    """Images, annotations and categories numbered from `first`."""
    ids = {name: number for number, name in enumerate(categories, start=first)}
    rows = [(first + at, item) for at, (_, objects) in enumerate(placed) for item in objects]
    return {
        "images": [
            {"id": first + at, "file_name": name, "width": 64, "height": 48} for at, (name, _) in enumerate(placed)
        ],
        "annotations": [_annotation(first + at, image, ids[item[0]], item) for at, (image, item) in enumerate(rows)],
        "categories": [{"id": number, "name": name, "supercategory": ""} for name, number in ids.items()],
    }


def coco2017(root: Path) -> Expected:
    """COCO's own: files of other tasks beside the boxes."""
    for split in ("train", "val"):
        content = _content(PLACED)
        _write(root / "annotations" / f"instances_{split}2017.json", content)
        captions = [{"id": 1, "image_id": 1, "caption": "a cat"}]
        _write(root / "annotations" / f"captions_{split}2017.json", {**content, "annotations": captions})
        _write(root / "annotations" / f"person_keypoints_{split}2017.json", content)
        segments = [{"image_id": 1, "file_name": "a.png", "segments_info": []}]
        _write(root / "annotations" / f"panoptic_{split}2017.json", {**content, "annotations": segments})
        for name, _ in PLACED:
            write_image(root / f"{split}2017" / name)
    return {split: {f"{split}2017/{name}": items for name, items in PLACED} for split in ("train", "val")}


def cvat_coco(root: Path) -> Expected:
    """CVAT's "COCO 1.0": `instances_default.json`, pictures in sub-folders, attributes, ids from 1."""
    placed = (("sub/a b.jpg", [CAT]), ("b.jpg", [DOG, CROWD]))
    content = _content(placed)
    for row in content["images"]:
        row |= {"license": 0, "flickr_url": "", "coco_url": "", "date_captured": 0}
    for row in content["annotations"]:
        row |= {"area": float(row["area"]), "attributes": {"occluded": False, "rotation": 0.0}}
    content |= {"licenses": [{"name": "", "id": 0, "url": ""}], "info": {"contributor": "", "year": ""}}
    _write(root / "annotations" / "instances_default.json", content)
    for name, _ in placed:
        write_image(root / "images" / "default" / name)
    return {"default": {f"images/default/{name}": items for name, items in placed}}


def roboflow_coco(root: Path) -> Expected:
    """Roboflow's "COCO": a json beside the pictures of each split, a category 0 of no object, ids from 0."""
    expected: Expected = {}
    for folder, split in (("train", "train"), ("valid", "val"), ("test", "test")):
        expected[split] = _roboflow(root / folder, f"{folder}/")
    (root / "README.roboflow.txt").write_text("")
    return expected


def roboflow_coco_flat(root: Path) -> Expected:
    """The same without splits, as people unpack one of its folders."""
    return {"all": _roboflow(root, "")}


def _roboflow(folder: Path, prefix: str) -> dict[str, list[Object]]:
    placed = tuple((f"{name[0]}_jpg.rf.0a1b2c3d.jpg", items) for name, items in PLACED)
    content = _content(placed, first=0, categories=("animals", "cat", "dog"))
    for row in content["categories"]:
        row["supercategory"] = "animals" if row["id"] else "none"
    for row in content["images"]:
        row |= {"license": 1, "date_captured": "2024-01-01T00:00:00+00:00", "extra": {"name": "a.jpg"}}
    for row in content["annotations"]:
        row |= {"segmentation": [], "area": float(row["area"])}
    _write(folder / "_annotations.coco.json", content)
    for name, _ in placed:
        write_image(folder / name)
    return {prefix + name: list(items) for name, items in placed}


def label_studio_coco(root: Path) -> Expected:
    """Label Studio's "COCO": `result.json` beside `images/`, written on Windows; a task of no label has no size."""
    placed = (*PLACED, ("c.jpg", []))
    content = _content([(f"images\\0a1b2c3d-{name}", items) for name, items in placed], first=0)
    for row in content["annotations"]:
        row |= {"segmentation": [], "ignore": 0, "bbox": [float(value) for value in row["bbox"]]}
    content["images"][2] |= {"width": None, "height": None}
    content["info"] = {"year": 2024, "version": "1.0", "description": "", "contributor": "Label Studio", "url": ""}
    _write(root / "result.json", content)
    for name, _ in placed:
        write_image(root / "images" / f"0a1b2c3d-{name}")
    return {"all": {f"images/0a1b2c3d-{name}": list(items) for name, items in placed}}


def label_studio_urls(root: Path) -> Expected:
    """Label Studio's where it could not fetch the pictures: addresses of its own storage instead of files."""
    told = ("/data/upload/3/0a1b2c3d-a.jpg", "/data/local-files/?d=pictures/b%20c.jpg", "s3://bucket/raw/d.jpg?X-Amz=1")
    names = ("0a1b2c3d-a.jpg", "b c.jpg", "d.jpg")
    objects = ([CAT], [DOG], [CROWD])
    _write(root / "result.json", _content(list(zip(told, objects, strict=True)), first=0))
    for name in names:
        write_image(root / "images" / name)
    return {"all": {f"images/{name}": list(items) for name, items in zip(names, objects, strict=True)}}


def labelme2coco(root: Path) -> Expected:
    """labelme2coco's: `dataset.json`, the category's name in each annotation, no area in some, ids from 0."""
    content = _content(PLACED, first=0)
    for row in content["annotations"]:
        row["category_name"] = content["categories"][row["category_id"]]["name"]
    content["annotations"][0].pop("iscrowd")
    _write(root / "dataset.json", content)
    for name, _ in PLACED:
        write_image(root / name)
        _write((root / name).with_suffix(".json"), {"version": "5.0.1", "shapes": [], "imagePath": name})
    return {"all": {name: list(items) for name, items in PLACED}}


def labelme_examples(root: Path) -> Expected:
    """The script among labelme's examples: `annotations.json`, `JPEGImages/` in the file names, pictures of masks."""
    _write(root / "annotations.json", _content([(f"JPEGImages/{name}", items) for name, items in PLACED], first=0))
    for name, _ in PLACED:
        write_image(root / "JPEGImages" / name)
        write_image(root / "Visualization" / name)
    return {"all": {f"JPEGImages/{name}": list(items) for name, items in PLACED}}


def via_coco(root: Path) -> Expected:
    """VGG Image Annotator's: ids as text in its older versions, licence numbers, a file name of its own choice."""
    content = _content(PLACED, first=0)
    for row in content["images"]:
        row |= {"id": str(row["id"]), "license": 0, "flickr_url": "", "coco_url": "", "date_captured": ""}
    for row in content["annotations"]:
        row |= {"image_id": str(row["image_id"]), "segmentation": row["segmentation"][0]}
    _write(root / "via_export_coco.json", content)
    for name, _ in PLACED:
        write_image(root / name)
    return {"via_export_coco": {name: list(items) for name, items in PLACED}}


def fiftyone_coco(root: Path) -> Expected:
    """FiftyOne's: `labels.json` beside `data/`, nulls."""
    content = _content(PLACED)
    for row in content["categories"]:
        row["supercategory"] = None
    for row in content["images"]:
        row |= {"license": None, "coco_url": None}
    for row in content["annotations"]:
        row["segmentation"] = None
        row["iscrowd"] = row["iscrowd"] or None
    content |= {"info": None, "licenses": None}
    _write(root / "labels.json", content)
    for name, _ in PLACED:
        write_image(root / "data" / name)
    return {"all": {f"data/{name}": list(items) for name, items in PLACED}}


def pandas_coco(root: Path) -> Expected:
    """A script's that went through pandas: every number a float; its settings lie beside it."""
    content = _content(PLACED)
    for row in (*content["images"], *content["annotations"], *content["categories"]):
        row |= {key: float(value) for key, value in row.items() if type(value) is int}
    _write(root / "annotations" / "all_boxes.json", content)
    _write(root / "annotations" / "settings.json", {"tool": "x", "images": 2})
    _write(root / "annotations" / "captions.json", {**content, "annotations": [{"id": 1, "caption": "a"}]})
    for name, _ in PLACED:
        write_image(root / "images" / name)
    return {"all_boxes": {f"images/{name}": list(items) for name, items in PLACED}}


def absolute_paths(root: Path) -> Expected:
    """A script's on another machine: absolute names of its disk, and a suffix in other letters."""
    told = ("/home/me/project/images/train/a.jpg", "D:\\project\\images\\train\\B.JPG")
    content = _content([(name, items) for name, (_, items) in zip(told, PLACED, strict=True)])
    _write(root / "annotations" / "train.json", content)
    for name, _ in PLACED:
        write_image(root / "images" / "train" / name)
    return {"train": {f"images/train/{name}": list(items) for name, items in PLACED}}


def masks_only(root: Path) -> Expected:
    """A script's for segmentation: no `bbox` anywhere, masks as polygons and as runs."""
    content = _content(PLACED)
    for row in content["annotations"]:
        del row["bbox"]
    x, y, width, height = 40, 10, 20, 30
    runs = [x * 48 + y, *([height, 48 - height] * width)][:-1]
    content["annotations"][2]["segmentation"] = {"counts": runs, "size": [48, 64]}
    _write(root / "annotations" / "instances_train.json", content)
    for name, _ in PLACED:
        write_image(root / "train" / name)
    return {"train": {f"train/{name}": list(items) for name, items in PLACED}}


TOOLS: tuple[Callable[[Path], Expected], ...] = (
    coco2017,
    cvat_coco,
    roboflow_coco,
    roboflow_coco_flat,
    label_studio_coco,
    label_studio_urls,
    labelme2coco,
    labelme_examples,
    via_coco,
    fiftyone_coco,
    pandas_coco,
    absolute_paths,
    masks_only,
)
