"""The small model for photographs: images a second through `Detector`, decoding and post-processing included.

The pictures are square: the network then has all of its 448 x 448 pixels to look at.
"""

from __future__ import annotations

import tempfile
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import torch

from benchmarks.timing import THREADS, emit, fastest
from tood.inference import Detector
from tood.models import build_model, for_inference
from tood.zoo import named_model

MODEL, BATCH, SIDE = "tood_lite0", 8, 640


def write_pictures(folder: Path) -> list[Path]:
    """As many JPEGs as a batch has, of smooth noise."""
    rng, paths = np.random.default_rng(0), [folder / f"{i}.jpg" for i in range(BATCH)]
    for path in paths:
        small = rng.integers(0, 255, (SIDE // 8, SIDE // 8, 3), np.uint8)
        cv2.imwrite(str(path), cv2.resize(small, (SIDE, SIDE), interpolation=cv2.INTER_CUBIC))
    return paths


def main() -> None:
    """Prints them, and the network's alone, in both precisions."""
    torch.set_num_threads(THREADS)
    torch.manual_seed(0)
    config = named_model(MODEL).config()
    model, names = build_model(config).eval(), [str(i) for i in range(config.classes)]
    images = torch.randn(BATCH, 3, config.input.short, config.input.long)
    with tempfile.TemporaryDirectory() as folder:
        paths = write_pictures(Path(folder))
        for precision, dtype in (("bf16", torch.bfloat16), ("fp32", torch.float32)):
            with torch.inference_mode():
                network = partial(for_inference(model, dtype), images)
                emit(f"small network {precision}", BATCH / fastest(network, 5), "images/s")
            detector = Detector.from_model(model, names, "cpu", precision=precision)
            emit(f"small detector {precision}", BATCH / fastest(partial(detect, detector, paths), 5), "images/s")


def detect(detector: Detector, paths: list[Path]) -> None:
    """All pictures as one batch."""
    list(detector.stream(paths, batch_size=BATCH))


if __name__ == "__main__":
    main()
