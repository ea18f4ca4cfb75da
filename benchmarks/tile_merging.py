"""Objects of a large picture that are found once, several times or not at all: our tiles beside supervision's slicer.

Photographs with one object each are laid at random places and sizes on a picture; the truth are their annotated boxes.

python -m benchmarks.tile_merging --model runs/x/best.safetensors --data data/raccoon
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from tood.boxes import iou_matrix
from tood.data import load_dataset
from tood.data.images import read_image
from tood.inference import Detector, TileConfig

Boxes = NDArray[np.float32]
_CELL = 900
# A box is of an object from here on.
_IOU = 0.5


@dataclass(frozen=True)
class Placed:
    """A photograph with one object, laid on a large picture.

    Attributes:
        path: of its file.
        scale: by which it is made smaller or larger.
        top, left, height, width: where it lies.
        box: of the object, in the large picture.
    """

    path: Path
    scale: float
    top: int
    left: int
    height: int
    width: int
    box: Boxes

    def pixels(self) -> NDArray[np.uint8]:
        """[height, width, 3] as it lies there."""
        return cv2.resize(read_image(self.path), (self.width, self.height), interpolation=cv2.INTER_AREA)


def placements(data: Path, side: int, rng: np.random.Generator) -> list[Placed]:
    """Photographs at random places and sizes over a square picture."""
    records = [record for record in load_dataset(data, "test").images if len(record.boxes) == 1]
    placed = []
    for top in range(0, side - _CELL + 1, _CELL):
        for left in range(0, side - _CELL + 1, _CELL):
            record = records[rng.integers(len(records))]
            sides = np.array(read_image(record.path).shape[:2])
            scale = rng.uniform(0.25, 1.0) * _CELL / sides.max()
            height, width = (round(length) for length in sides * scale)
            y, x = (int(rng.integers(0, _CELL - length + 1)) for length in (height, width))
            box = np.asarray(record.boxes[0], np.float32) * np.float32(scale) + np.float32([left + x, top + y] * 2)
            placed.append(Placed(record.path, float(scale), top + y, left + x, height, width, box))
    return placed


def scene(data: Path, side: int, rng: np.random.Generator) -> tuple[NDArray[np.uint8], Boxes]:
    """A picture of photographs, and the boxes of what is on them."""
    picture = np.full((side, side, 3), 120, np.uint8)
    placed = placements(data, side, rng)
    for one in placed:
        picture[one.top : one.top + one.height, one.left : one.left + one.width] = one.pixels()
    return picture, np.array([one.box for one in placed], np.float32)


def score(found: Boxes, truth: Boxes) -> tuple[int, int, int]:
    """Objects found, further boxes on them, and boxes on nothing."""
    import torch

    if not len(found):
        return 0, 0, 0
    iou = iou_matrix(torch.from_numpy(truth), torch.from_numpy(found)).numpy()
    hits = (iou >= _IOU).any(axis=1).sum()
    low = np.maximum(found[:, None, :2], truth[None, :, :2])
    high = np.minimum(found[:, None, 2:], truth[None, :, 2:])
    share = (high - low).clip(min=0).prod(axis=2) / (found[:, 2:] - found[:, :2]).prod(axis=1)[:, None]
    on_one = (share > 0.5).any(axis=1).sum()
    return int(hits), int(on_one - hits), int(len(found) - on_one)


def sliced(detector: Detector, picture: NDArray[np.uint8], size: int, kind: str) -> Boxes:
    """By supervision's slicer."""
    import supervision as sv

    def look(tile: NDArray[np.uint8]) -> sv.Detections:
        found = detector(tile, keep_image=False)
        return sv.Detections(found.boxes.numpy(), confidence=found.scores.numpy(), class_id=found.labels.numpy())

    overlap = {"NMS": sv.OverlapFilter.NON_MAX_SUPPRESSION, "NMM": sv.OverlapFilter.NON_MAX_MERGE}[kind[:3]]
    metric = sv.OverlapMetric.IOS if "IOS" in kind else sv.OverlapMetric.IOU
    slicer = sv.InferenceSlicer(
        look, slice_wh=size, overlap_wh=round(0.2 * size), overlap_filter=overlap, overlap_metric=metric
    )
    return np.asarray(slicer(picture).xyxy, np.float32)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--side", type=int, default=3600)
    parser.add_argument("--threshold", type=float, default=0.4)
    options = parser.parse_args()
    detector = Detector(options.model, "cpu", options.threshold)
    picture, truth = scene(options.data, options.side, np.random.default_rng(0))
    size = detector.input.short
    ways: dict[str, Callable[[], Boxes]] = {
        "ours": lambda: detector.in_tiles(picture).boxes.numpy(),
        "ours, no smaller copies": lambda: detector.in_tiles(picture, TileConfig(smaller=False)).boxes.numpy(),
        "ours, no second looks": lambda: detector.in_tiles(picture, TileConfig(second_look=False)).boxes.numpy(),
        **{
            f"supervision, {kind}": lambda kind=kind: sliced(detector, picture, size, kind)  # type: ignore[misc]
            for kind in ("NMS, IOU", "NMS, IOS", "NMM, IOU", "NMM, IOS")
        },
    }
    print(f"{len(truth)} objects, tiles of {size}, score above {options.threshold}")
    for name, way in ways.items():
        began = time.monotonic()
        found, more, nothing = score(way(), truth)
        seconds = time.monotonic() - began
        print(f"{name}: {found} found, {more} further boxes on them, {nothing} elsewhere, {seconds:.1f} s", flush=True)


if __name__ == "__main__":
    main()
