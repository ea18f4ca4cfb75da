"""A COCO folder of made-up pictures, as a user would have it."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np


def coco_folder(root: Path, splits: tuple[str, ...] = ("train2017", "val2017"), images: int = 6) -> Path:
    """Grey pictures of 48 x 40 pixels with one bright square each, of two classes with ids 3 and 7."""
    (root / "annotations").mkdir(parents=True)
    for split in splits:
        (root / split).mkdir()
        records, annotations = [], []
        for number in range(1, images + 1):
            pixels = np.full((40, 48, 3), 90, np.uint8)
            x, y = 4 * (number % 3), 2 * (number % 11)
            pixels[y : y + 20, x : x + 20] = 255
            cv2.imwrite(str(root / split / f"{number:03d}.png"), pixels)
            records.append({"id": number, "file_name": f"{number:03d}.png", "width": 48, "height": 40})
            annotations.append(
                {
                    "id": number,
                    "image_id": number,
                    "category_id": (3, 7)[number % 2],
                    "bbox": [x, y, 20, 20],
                    "area": 400,
                    "iscrowd": 0,
                }
            )
        content = {
            "images": records,
            "annotations": annotations,
            "categories": [{"id": 3, "name": "cat"}, {"id": 7, "name": "dog"}],
        }
        (root / "annotations" / f"instances_{split}.json").write_text(json.dumps(content))
    return root


def with_objects(root: Path, objects: int) -> Path:
    """Two pictures, on which so many boxes of 16 pixels lie, and beside them what is never learned."""
    coco_folder(root, images=2)
    file = root / "annotations" / "instances_train2017.json"
    content = json.loads(file.read_text())
    one = content["annotations"][0] | {"bbox": [4, 4, 16, 16], "area": 256}
    crowd, speck = one | {"iscrowd": 1}, one | {"bbox": [4, 4, 0.5, 0.5], "area": 0.25}
    boxes = [one] * objects + [crowd] * 5 + [speck] * 7
    content["annotations"] = [box | {"id": i + 1, "image_id": 1 + i % 2} for i, box in enumerate(boxes)]
    file.write_text(json.dumps(content))
    return root
