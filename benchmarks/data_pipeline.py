"""One worker's images a second: decode, resize to fit 800 x 1333, mirror, normalise; ours and the usual way.

    python -m benchmarks.data_pipeline FOLDER_OF_PICTURES [--repeats 5] [--images 60]

The usual way is Pillow's decoder and bilinear filter, then NumPy: mirror, float32, normalise, planes first. Ours is
what `train_loader` and the network do: OpenCV, uint8 until a batch is normalised. Both with one thread, both from the
files' bytes, alternating so that a machine that slows down slows both; each row is the best of its repeats.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from io import BytesIO
from pathlib import Path

import cv2
import numpy as np
import torch
from PIL import Image

from tood.data import Collate, ImageInfo, Sample, read_image
from tood.data.transforms import fit_scale, flip, resize, resized_shape
from tood.models import InputConfig, normalise

SHORT, LONG = 800, 1333
OURS, USUAL = "tood", "Pillow + NumPy"
_NO_BOX = (np.zeros((0, 4), np.float32), np.zeros(0, np.int64), np.zeros(0, np.bool_))
_INPUT = InputConfig()
_COLLATE = Collate(_INPUT.divisor)


def ours(data: bytes, mirrored: bool) -> torch.Tensor:
    """[1, 3, H, W] float32, padded to the divisor: what the network computes with."""
    sample = Sample(read_image(data), *_NO_BOX)
    scale = fit_scale(sample.height, sample.width, SHORT, LONG)
    sample = resize(sample, *resized_shape(sample.height, sample.width, scale))
    if mirrored:
        sample = flip(sample, horizontal=True)
    batch = _COLLATE([(sample, ImageInfo(0, "", 0, 0, 1.0, 1.0))])
    return normalise(batch.images, batch.sizes, _INPUT)


def usual(data: bytes, mirrored: bool) -> np.ndarray:
    """[3, H, W] float32."""
    with Image.open(BytesIO(data)) as opened:
        picture = opened.convert("RGB")
    scale = fit_scale(picture.height, picture.width, SHORT, LONG)
    height, width = resized_shape(picture.height, picture.width, scale)
    pixels = np.asarray(picture.resize((width, height), Image.Resampling.BILINEAR))
    if mirrored:
        pixels = pixels[:, ::-1]
    scaled = (pixels.astype(np.float32) - np.float32(_INPUT.mean)) / np.float32(_INPUT.std)
    return np.ascontiguousarray(scaled.transpose(2, 0, 1))


def rows(pictures: Sequence[Path], repeats: int = 5) -> list[tuple[str, float]]:
    """(name, images a second) of both ways over the same files, ours first.

    Args:
        pictures: JPEG files.
        repeats: passes over them; the fastest counts.
    """
    threads = torch.get_num_threads(), cv2.getNumThreads()
    torch.set_num_threads(1)
    cv2.setNumThreads(0)
    try:
        files = [path.read_bytes() for path in pictures]
        ways: dict[str, Callable[[bytes, bool], object]] = {OURS: ours, USUAL: usual}
        best = dict.fromkeys(ways, float("inf"))
        for _ in range(repeats):
            for name, way in ways.items():
                begun = time.perf_counter()
                for number, data in enumerate(files):
                    way(data, number % 2 == 0)
                best[name] = min(best[name], time.perf_counter() - begun)
    finally:
        torch.set_num_threads(threads[0])
        cv2.setNumThreads(threads[1])
    return [(name, len(files) / seconds) for name, seconds in best.items()]


def pictures_of(folder: Path, count: int) -> list[Path]:
    """The first JPEG files under a folder."""
    found = sorted(path for path in folder.rglob("*") if path.suffix.lower() in (".jpg", ".jpeg"))[:count]
    if not found:
        raise SystemExit(f"there is no JPEG in {folder}")
    return found


def main() -> None:
    """Prints the rows as a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--images", type=int, default=60)
    parser.add_argument("--repeats", type=int, default=5)
    given = parser.parse_args()
    measured = rows(pictures_of(given.folder, given.images), given.repeats)
    print("| decode, resize, mirror, normalise; one thread | images/s |\n|---|---|")
    for name, rate in measured:
        print(f"| {name} | {rate:.1f} |")
    print(f"\nratio {measured[0][1] / measured[1][1]:.2f}")


if __name__ == "__main__":
    main()
