"""Made-up datasets of COCO's and Objects365's size, and what reading them takes.

`python -m benchmarks.large_sets make coco FOLDER` writes 118,000 images, 800,000 boxes with polygons (370 MB of json),
`make objects365` 1.7 million images and 25 million boxes, `make yolo` and `make voc` a file for each picture and its
labels; `--images`, `--boxes` and `--polygon` make others. Pictures are links to a few files: only names grow with them.
`python -m benchmarks.large_sets measure WHAT PATH` prints seconds and the highest memory of one process that loads a
dataset and, if WHAT says so, does something with it.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.timing import emit, peak_memory, resident_memory

WIDTH, HEIGHT = 64, 48
# Of so many links most file systems have room.
LINKS = 30_000
BLOCK = 20_000


@dataclass(frozen=True)
class Size:
    """How large a set is: images, boxes, classes, the points of each polygon (0: none), folders of images."""

    images: int
    boxes: int
    classes: int
    points: int
    folders: int


SIZES = {
    "coco": Size(118_000, 800_000, 80, 15, 1),
    "objects365": Size(1_700_000, 25_000_000, 365, 0, 51),
    "yolo": Size(100_000, 700_000, 80, 0, 1),
    "voc": Size(100_000, 300_000, 20, 0, 1),
}


def picture(folder: Path, number: int) -> Path:
    """One small JPEG, written once for `LINKS` of the set's pictures."""
    import cv2

    path = folder / f"{number // LINKS}.jpg"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(number).integers(0, 255, (HEIGHT // 8, WIDTH // 8, 3), np.uint8)
        path.write_bytes(cv2.imencode(".jpg", cv2.resize(pixels, (WIDTH, HEIGHT)))[1].tobytes())
    return path


def image_name(number: int, size: Size) -> str:
    """Name inside the images' folder."""
    name = f"{number + 1:012}.jpg"
    return name if size.folders == 1 else f"patch{number % size.folders}/{name}"


def place_pictures(top: Path, store: Path, size: Size) -> None:
    """The set's pictures: every name a link to one of few files."""
    for part in {Path(image_name(number, size)).parent for number in range(size.folders)}:
        (top / part).mkdir(parents=True, exist_ok=True)
    for number in range(size.images):
        os.link(picture(store, number), f"{top}/{image_name(number, size)}")


def boxes_by_image(size: Size) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
    """Of each image in turn: its number, its boxes [G, 4] (x y width height in its pixels), its classes [G], from 1."""
    rng = np.random.default_rng(0)
    for start in range(0, size.images, BLOCK):
        stop = min(start + BLOCK, size.images)
        total = size.boxes * stop // size.images - size.boxes * start // size.images
        at = np.sort(rng.integers(start, stop, total))
        corners = np.sort(rng.uniform(0, 1, (total, 2, 2)), axis=1) * np.array([WIDTH - 2, HEIGHT - 2])
        boxes = np.concatenate([corners[:, 0], corners[:, 1] - corners[:, 0] + 1.5], axis=1).round(2)
        labels = rng.integers(1, size.classes + 1, total)
        edges = np.searchsorted(at, np.arange(start, stop + 1))
        for number in range(start, stop):
            own = slice(edges[number - start], edges[number - start + 1])
            yield number, boxes[own], labels[own]


def write_coco(folder: Path, size: Size) -> None:
    """`annotations/instances_train2017.json`, in COCO's order of sections and keys."""
    (folder / "annotations").mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(1)
    polygons = [
        ", ".join(f"{value:.2f}" for value in rng.uniform(0, 640, 2 * max(1, points)))
        for points in rng.integers(size.points // 2, 2 * size.points + 1, 997)
    ]
    with (folder / "annotations" / "instances_train2017.json").open("w") as file:
        file.write('{"info": {"description": "made up", "year": 2017}, "licenses": [{"id": 1, "name": "none"}], ')
        file.write('"images": [')
        for number in range(size.images):
            url = f"http://images.cocodataset.org/train2017/{number + 1:012}.jpg"
            file.write(
                f'{", " if number else ""}{{"license": 3, "file_name": "{image_name(number, size)}", "coco_url": '
                f'"{url}", "height": {HEIGHT}, "width": {WIDTH}, "date_captured": "2013-11-14 11:18:45", "flickr_url": '
                f'"http://farm9.staticflickr.com/8186/{number}_z.jpg", "id": {number + 1}}}'
            )
        file.write('], "annotations": [')
        own = 0
        for number, boxes, labels in boxes_by_image(size):
            rows = []
            for (x, y, w, h), label in zip(boxes.tolist(), labels.tolist(), strict=True):
                own += 1
                mask = f'"segmentation": [[{polygons[own % 997]}]], ' if size.points else ""
                rows.append(
                    f'{", " if own > 1 else ""}{{{mask}"area": {w * h * 0.7:.4f}, "iscrowd": {int(own % 99 == 0)}, '
                    f'"image_id": {number + 1}, "bbox": [{x}, {y}, {w}, {h}], "category_id": {label}, "id": {own}}}'
                )
            file.write("".join(rows))
        classes = ", ".join(
            f'{{"supercategory": "thing", "id": {number}, "name": "class {number}"}}'
            for number in range(1, size.classes + 1)
        )
        file.write(f'], "categories": [{classes}]}}')
    place_pictures(folder / "train2017", folder.with_name(folder.name + "-pictures"), size)


def write_yolo(folder: Path, size: Size) -> None:
    """`data.yaml`, `images/train`, `labels/train`; each picture is a file of its own, as links would be one picture."""
    (folder / "images" / "train").mkdir(parents=True)
    (folder / "labels" / "train").mkdir(parents=True)
    names = "".join(f"  {number}: class {number}\n" for number in range(size.classes))
    (folder / "data.yaml").write_text(f"train: images/train\nnames:\n{names}")
    limits = np.array([WIDTH, HEIGHT, WIDTH, HEIGHT])
    data = picture(folder.with_name(folder.name + "-pictures"), 0).read_bytes()
    for number, boxes, labels in boxes_by_image(size):
        parts = np.concatenate([boxes[:, :2] + boxes[:, 2:] / 2, boxes[:, 2:]], axis=1) / limits
        lines = [
            f"{label - 1} {x:.6f} {y:.6f} {w:.6f} {h:.6f}\n"
            for label, (x, y, w, h) in zip(labels.tolist(), parts.tolist(), strict=True)
        ]
        (folder / "images" / "train" / f"{number + 1:012}.jpg").write_bytes(data)
        (folder / "labels" / "train" / f"{number + 1:012}.txt").write_text("".join(lines))


def write_voc(folder: Path, size: Size) -> None:
    """`Annotations`, `JPEGImages`, `ImageSets/Main/train.txt`."""
    for name in ("Annotations", "JPEGImages", "ImageSets/Main"):
        (folder / name).mkdir(parents=True)
    keys = [f"{number + 1:012}" for number in range(size.images)]
    (folder / "ImageSets" / "Main" / "train.txt").write_text("\n".join(keys) + "\n")
    data = picture(folder.with_name(folder.name + "-pictures"), 0).read_bytes()
    for number, boxes, labels in boxes_by_image(size):
        corners = np.concatenate([boxes[:, :2] + 1, boxes[:, :2] + boxes[:, 2:]], axis=1).round(2)
        objects = "".join(
            f"<object><name>class {label}</name><difficult>{int(x < 0.5)}</difficult><bndbox><xmin>{x}</xmin>"
            f"<ymin>{y}</ymin><xmax>{x2}</xmax><ymax>{y2}</ymax></bndbox></object>"
            for label, (x, y, x2, y2) in zip(labels.tolist(), corners.tolist(), strict=True)
        )
        (folder / "JPEGImages" / f"{keys[number]}.jpg").write_bytes(data)
        (folder / "Annotations" / f"{keys[number]}.xml").write_text(
            f"<annotation><filename>{keys[number]}.jpg</filename><size><width>{WIDTH}</width><height>{HEIGHT}</height>"
            f"<depth>3</depth></size>{objects}</annotation>\n"
        )


WRITERS = {"coco": write_coco, "objects365": write_coco, "yolo": write_yolo, "voc": write_voc}


def measure(what: str, path: Path, out: Path | None) -> None:
    """Loads a dataset, does something with it, and prints seconds and memory of each."""
    from tood.data import check_dataset, convert_dataset, dataset_stats, load_dataset, split_dataset

    def row(name: str, started: float) -> None:
        emit(f"{name}, seconds", time.perf_counter() - started, "s")
        emit(f"{name}, highest memory", peak_memory(), "MiB")

    emit("imports, memory", peak_memory(), "MiB")
    started = time.perf_counter()
    if what in ("check", "split") or what.startswith("convert"):
        if what == "check":
            check_dataset(path)
        elif what == "split":
            split_dataset(path, out or path.with_name(path.name + "-split"))
        else:
            convert_dataset(path, out or path.with_name(path.name + "-converted"), what.partition("-")[2])
        row(what, started)
        return
    dataset = load_dataset(path)
    row("load", started)
    emit("load, memory kept", resident_memory(), "MiB")
    started = time.perf_counter()
    if what == "stats":
        dataset_stats(dataset).to_dict()
        row(what, started)
    if what == "truth":
        from tood.evaluation import GroundTruth

        GroundTruth.from_dataset(dataset)
        row(what, started)
    if what == "eval":
        from tood.evaluation import DetectionTable, GroundTruth, evaluate_detections

        truth = GroundTruth.from_dataset(dataset)
        scores = np.random.default_rng(0).random(len(truth.boxes))
        table = DetectionTable(truth.annotation_image_ids, truth.annotation_category_ids, truth.boxes, scores)
        evaluate_detections(table, truth)
        row(what, started)


def main() -> None:
    """Writes a set, or measures."""
    parser = argparse.ArgumentParser(description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    make = commands.add_parser("make")
    make.add_argument("kind", choices=SIZES)
    make.add_argument("folder", type=Path)
    make.add_argument("--images", type=int)
    make.add_argument("--boxes", type=int)
    make.add_argument("--points", type=int)
    watch = commands.add_parser("measure")
    watch.add_argument("what", choices=["load", "stats", "check", "truth", "eval", "split", *CONVERSIONS])
    watch.add_argument("path", type=Path)
    watch.add_argument("--out", type=Path)
    said = parser.parse_args()
    if said.command == "measure":
        measure(said.what, said.path, said.out)
        return
    usual = SIZES[said.kind]
    images = said.images or usual.images
    boxes = said.boxes or usual.boxes * images // usual.images
    points = usual.points if said.points is None else said.points
    WRITERS[said.kind](said.folder, Size(images, boxes, usual.classes, points, usual.folders))


CONVERSIONS = ("convert-coco", "convert-yolo", "convert-voc")

if __name__ == "__main__":
    main()
