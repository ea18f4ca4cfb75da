"""Photographs to network input, one worker, one thread: ours, or with `--usual` Pillow's and numpy's."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from benchmarks.timing import emit, fastest

PICTURES, WIDTH, HEIGHT = 12, 1280, 960
MEAN, STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)


def write_pictures(folder: Path) -> list[Path]:
    """JPEGs of smooth noise, which compress as photographs do."""
    rng = np.random.default_rng(0)
    paths = []
    for i in range(PICTURES):
        small = Image.fromarray(rng.integers(0, 255, (HEIGHT // 8, WIDTH // 8, 3), np.uint8))
        paths.append(folder / f"{i}.jpg")
        small.resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC).save(paths[-1], quality=92)
    return paths


def usual(path: Path) -> torch.Tensor:
    """Decode, resize into 800x1333, flip, normalise: as most tutorials write it."""
    picture = Image.open(path).convert("RGB")
    scale = min(800 / min(picture.size), 1333 / max(picture.size))
    picture = picture.resize((round(picture.width * scale), round(picture.height * scale)), Image.Resampling.BILINEAR)
    values = np.asarray(picture)[:, ::-1].astype(np.float32)
    values = (values - np.array(MEAN, np.float32)) / np.array(STD, np.float32)
    return torch.from_numpy(np.ascontiguousarray(values.transpose(2, 0, 1)))


def ours(path: Path) -> torch.Tensor:
    """The same by this package's parts."""
    from tood.data import Collate, ImageInfo, Sample, read_image
    from tood.data.transforms import Resize, flip
    from tood.input import InputConfig, normalise

    rng = np.random.default_rng(0)
    sample = Sample(read_image(path), np.zeros((0, 4), np.float32), np.zeros(0, np.int64), np.zeros(0, np.bool_))
    sample = flip(Resize(800, 1333)(sample, rng), True)
    config = InputConfig(800, 1333)
    batch = Collate(config)([(sample, ImageInfo(0, path.name, config.geometry(HEIGHT, WIDTH)))])
    return normalise(batch.images, batch.sizes, config)


def main() -> None:
    """Prints images a second."""
    import cv2

    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    prepare = usual if "--usual" in sys.argv else ours
    with tempfile.TemporaryDirectory() as folder:
        paths = write_pictures(Path(folder))
        seconds = fastest(lambda: [prepare(path) for path in paths], 4)
    emit("images", len(paths) / seconds, "images/s")


if __name__ == "__main__":
    main()
