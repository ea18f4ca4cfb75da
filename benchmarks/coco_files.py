"""Made-up annotations and detections as large as COCO's val2017."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

IMAGES, OBJECTS, DETECTIONS, CLASSES = 5_000, 36_000, 500_000, 80


def write_files(folder: Path, images: int = IMAGES, objects: int = OBJECTS, detections: int = DETECTIONS) -> None:
    """Writes truth.json and detections.json: a third of the detections lie near an object of their class."""
    rng = np.random.default_rng(0)
    ids = np.sort(rng.choice(580_000, images, replace=False))
    image, category = rng.integers(0, images, objects), rng.integers(1, CLASSES + 1, objects)
    boxes = np.concatenate([rng.uniform(0, 500, (objects, 2)), np.exp(rng.uniform(2, 5.3, (objects, 2)))], 1).round(2)
    truth = {
        "images": [{"id": int(i), "width": 640, "height": 640, "file_name": f"{i:012}.jpg"} for i in ids],
        "categories": [{"id": i, "name": f"class {i}"} for i in range(1, CLASSES + 1)],
        "annotations": [
            {
                "id": n,
                "image_id": i,
                "category_id": c,
                "bbox": b,
                "area": 0.7 * b[2] * b[3],
                "iscrowd": int(n % 99 == 0),
            }
            for n, (i, c, b) in enumerate(
                zip(ids[image].tolist(), category.tolist(), boxes.tolist(), strict=True), start=1
            )
        ],
    }
    near = rng.random(detections) < 1 / 3
    which = rng.integers(0, objects, detections)
    on = np.where(near, image[which], rng.integers(0, images, detections))
    said = np.where(near, category[which], rng.integers(1, CLASSES + 1, detections))
    found = boxes[which] + rng.normal(0, 0.1, (detections, 4)) * boxes[which, 2:].max(1, keepdims=True)
    found[:, 2:] = np.maximum(found[:, 2:], 1)
    scores = np.where(near, rng.beta(2, 2, detections), rng.beta(1, 5, detections))
    columns = (ids[on].tolist(), said.tolist(), found.round(3).tolist(), scores.round(6).tolist())
    entries = [{"image_id": i, "category_id": c, "bbox": b, "score": s} for i, c, b, s in zip(*columns, strict=True)]
    (folder / "truth.json").write_text(json.dumps(truth))
    (folder / "detections.json").write_text(json.dumps(entries))
