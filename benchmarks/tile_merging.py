"""Objects of a large picture that are found once, several times or not at all: our tiles beside supervision's slicer.

Photographs with one object each are laid at random places and sizes on a picture; the truth are their annotated boxes.

python -m benchmarks.tile_merging --model runs/x/best.safetensors --data data/raccoon
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
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


def scene(data: Path, side: int, rng: np.random.Generator) -> tuple[NDArray[np.uint8], Boxes]:
    """A picture of photographs, and the boxes of what is on them."""
    records = [record for record in load_dataset(data, "test").images if len(record.boxes) == 1]
    picture = np.full((side, side, 3), 120, np.uint8)
    truth = []
    for top in range(0, side - _CELL + 1, _CELL):
        for left in range(0, side - _CELL + 1, _CELL):
            record = records[rng.integers(len(records))]
            pixels = read_image(record.path)
            longest = rng.uniform(0.25, 1.0) * _CELL
            scale = longest / max(pixels.shape[:2])
            small = cv2.resize(pixels, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
            y, x = (int(rng.integers(0, _CELL - length + 1)) for length in small.shape[:2])
            picture[top + y : top + y + small.shape[0], left + x : left + x + small.shape[1]] = small
            truth.append(np.asarray(record.boxes[0], np.float32) * scale + [left + x, top + y] * 2)
    return picture, np.array(truth, np.float32)


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
