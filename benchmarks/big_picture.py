"""Memory and time of a picture of 20,000 x 20,000 pixels, looked at by tiles.

python -m benchmarks.big_picture --model runs/x/best.safetensors --photographs data/raccoon
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

_TILE = 512


def write_picture(path: Path, side: int, photographs: Path | None, layout: str) -> None:
    """Photographs side by side over the whole picture, never more than a row of tiles of it in memory."""
    import tifffile

    options = {
        "tiled": {"tile": (_TILE, _TILE), "compression": "zlib"},
        "striped": {"rowsperstrip": 64, "compression": "lzw"},
        "plain": {"rowsperstrip": side},
    }[layout]
    rows = _rows(side, _photographs(photographs))
    tiles: Iterator[NDArray[np.uint8]]
    if layout == "tiled":
        tiles = (
            np.ascontiguousarray(_padded(row)[:, left : left + _TILE]) for row in rows for left in range(0, side, _TILE)
        )
    else:
        height = 64 if layout == "striped" else _TILE
        tiles = (row[top : top + height] for row in rows for top in range(0, len(row), height))
    if layout == "plain":
        with tifffile.TiffWriter(path, bigtiff=True) as writer:
            blank = np.broadcast_to(np.uint8(0), (side, side, 3))
            writer.write(shape=blank.shape, dtype=np.uint8, photometric="rgb", rowsperstrip=side)
        with tifffile.TiffFile(path) as tif:
            offset = tif.pages[0].dataoffsets[0]
        with path.open("r+b") as file:
            file.seek(offset)
            for piece in tiles:
                file.write(piece.tobytes())
        return
    tifffile.imwrite(path, tiles, shape=(side, side, 3), dtype=np.uint8, photometric="rgb", bigtiff=True, **options)


def _photographs(folder: Path | None) -> list[NDArray[np.uint8]]:
    from tood.data.files import find_images
    from tood.data.images import read_image

    if folder is None:
        return [np.random.default_rng(0).integers(0, 255, (416, 416, 3), dtype=np.uint8)]
    return [read_image(path) for path in list(find_images(folder).images)[:60]]


def _rows(side: int, photographs: list[NDArray[np.uint8]]) -> Iterator[NDArray[np.uint8]]:
    rng = np.random.default_rng(0)
    for top in range(0, side, _TILE):
        row = np.zeros((min(_TILE, side - top), side, 3), np.uint8)
        left = 0
        while left < side:
            one = photographs[rng.integers(len(photographs))][: len(row), : side - left]
            row[: one.shape[0], left : left + one.shape[1]] = one
            left += one.shape[1]
        yield row


def _padded(row: NDArray[np.uint8]) -> NDArray[np.uint8]:
    right = -row.shape[1] % _TILE
    return np.pad(row, ((0, _TILE - len(row)), (0, right), (0, 0)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True)
    parser.add_argument("--photographs", type=Path)
    parser.add_argument("--side", type=int, default=20_000)
    parser.add_argument("--tile-size", type=int)
    parser.add_argument("--layouts", default="tiled,striped,plain")
    options = parser.parse_args()
    for layout in options.layouts.split(","):
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "large.tif"
            write_picture(path, options.side, options.photographs, layout)
            words = ["predict", str(path), "--model", options.model, "--tiles", "--json", "--out", f"{folder}/out"]
            words += ["--batch-size", "4", *(["--tile-size", str(options.tile_size)] if options.tile_size else [])]
            began = time.monotonic()
            subprocess.run([sys.executable, "-m", "tood", *words], check=True)
            seconds = time.monotonic() - began
            most = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**20
            megabytes = path.stat().st_size / 2**20
            print(f"{layout} ({megabytes:,.0f} MiB): {seconds:.0f} s, at most {most:.2f} GiB resident", flush=True)


if __name__ == "__main__":
    main()
