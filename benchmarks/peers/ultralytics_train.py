"""YOLOv8n from scratch for some minutes, then what it finds at several times of its training.

Arguments: one json object with data, images, minutes (or epochs), size, batch, flip, moments, out;
and seed and threads where they are not to be the default.
"""

from __future__ import annotations

import json
import math
import shutil
import sys
import time
from pathlib import Path

from benchmarks.peers import torchvision_standin  # noqa: F401 - before ultralytics

# isort: split
import torch
from ultralytics import YOLO

from benchmarks.timing import THREADS


def main() -> None:
    """Writes OUT/found.json: for each moment, seconds and every image's boxes, x1 y1 x2 y2 score class."""
    asked = json.loads(sys.argv[1])
    torch.set_num_threads(asked.get("threads", THREADS))
    out = Path(asked["out"])
    moments = train(asked, out)
    images = sorted(asked["images"])
    found = [{"seconds": seconds, "images": detect(weights, images, asked["size"])} for seconds, weights in moments]
    (out / "found.json").write_text(json.dumps(found))


def train(asked: dict, out: Path) -> list[tuple[float, Path]]:
    """Seconds of training and weights, so many times; the last are those of the end."""
    model = YOLO("yolov8n.yaml")
    started = 0.0
    kept: list[tuple[float, Path]] = []
    interval = asked["minutes"] * 60 / asked["moments"] if "minutes" in asked else math.inf
    length = {"time": asked["minutes"] / 60} if "minutes" in asked else {"epochs": asked["epochs"]}

    def start(trainer: object) -> None:
        nonlocal started
        started = time.monotonic()

    def keep(trainer) -> None:
        # Called after each epoch's weights, averaged ones among them, are on the disk.
        seconds = time.monotonic() - started
        if seconds >= interval * (len(kept) + 1):
            kept.append((seconds, out / f"moment_{len(kept)}.pt"))
            shutil.copy(trainer.last, kept[-1][1])

    model.add_callback("on_train_start", start)
    model.add_callback("on_model_save", keep)
    model.train(
        data=asked["data"],
        **length,
        seed=asked.get("seed", 0),
        imgsz=asked["size"],
        batch=asked["batch"],
        fliplr=0.5 if asked["flip"] else 0.0,
        device="cpu",
        workers=2,
        cache="ram",
        pretrained=False,
        val=False,
        plots=False,
        verbose=False,
        project=str(out),
        name="run",
        exist_ok=True,
    )
    seconds = time.monotonic() - started
    if not kept or seconds - kept[-1][0] > 1:
        kept.append((seconds, Path(model.trainer.last)))
    return kept


def detect(weights: Path, images: list[str], size: int) -> dict[str, list[list[float]]]:
    """Boxes by image, with the thresholds of Ultralytics' own validation."""
    model, found = YOLO(str(weights)), {}
    for image in images:
        (result,) = model.predict(image, imgsz=size, conf=0.001, iou=0.7, max_det=300, device="cpu", verbose=False)
        found[image] = result.boxes.data.tolist()
    return found


if __name__ == "__main__":
    main()
