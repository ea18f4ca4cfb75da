"""A picture of 20,000 x 20,000 pixels looked at by tiles: memory, time, and what is found of objects whose places are
known, with and without a seam through them.

python -m benchmarks.big_picture --model runs/x/best.safetensors --data data/raccoon
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.tile_merging import Boxes, Placed, placements, score

_TILE = 512


def write_picture(path: Path, side: int, placed: Sequence[Placed], layout: str) -> None:
    """Photographs over the whole picture, never more than a row of tiles of it in memory."""
    import tifffile

    options = {
        "tiled": {"tile": (_TILE, _TILE), "compression": "zlib", "compressionargs": {"level": 1}},
        "striped": {"rowsperstrip": 64, "compression": "lzw"},
        "plain": {"rowsperstrip": side},
    }[layout]
    rows = _rows(side, placed)
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


def _rows(side: int, placed: Sequence[Placed]) -> Iterator[NDArray[np.uint8]]:
    for top in range(0, side, _TILE):
        row = np.full((min(_TILE, side - top), side, 3), 120, np.uint8)
        for one in placed:
            first, last = max(top, one.top), min(top + len(row), one.top + one.height)
            if first < last:
                row[first - top : last - top, one.left : one.left + one.width] = one.pixels()[
                    first - one.top : last - one.top
                ]
        yield row


def _padded(row: NDArray[np.uint8]) -> NDArray[np.uint8]:
    right = -row.shape[1] % _TILE
    return np.pad(row, ((0, _TILE - len(row)), (0, right), (0, 0)))


def on_a_seam(truth: Boxes, side: int, size: int) -> NDArray[np.bool_]:
    """[N] whether the border of a full-size tile goes through a box."""
    from tood.inference import TileConfig
    from tood.inference.tiles import tiles_of

    tiles = [tile for tile in tiles_of(side, side, size, TileConfig(size)) if tile.reduction == 1]
    crossed = np.zeros(len(truth), bool)
    for axis, borders in (
        (0, {edge for tile in tiles for edge in (tile.left, tile.left + tile.width)}),
        (1, {edge for tile in tiles for edge in (tile.top, tile.top + tile.height)}),
    ):
        inner = np.array(sorted(borders - {0, side}))[:, None]
        crossed |= ((truth[:, axis] < inner) & (inner < truth[:, axis + 2])).any(axis=0)
    return crossed


def told(found: Boxes, truth: Boxes, side: int, size: int) -> str:
    """How many objects were found once, of those on seams and of the others."""
    crossed = on_a_seam(truth, side, size)
    parts = []
    for name, which in (("on seams", crossed), ("on none", ~crossed)):
        once, more, _ = score(found, truth[which])
        parts.append(f"of {which.sum()} objects {name} {once} found, {more} further boxes on them")
    return f"{'; '.join(parts)}; {score(found, truth)[2]} boxes elsewhere"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True)
    parser.add_argument("--data", type=Path, required=True, help="a dataset whose photographs are laid out")
    parser.add_argument("--side", type=int, default=20_000)
    parser.add_argument("--tile-size", type=int, default=1024)
    parser.add_argument("--threshold", type=float, default=0.4)
    parser.add_argument("--layouts", default="tiled,striped,plain")
    options = parser.parse_args()
    placed = placements(options.data, options.side, np.random.default_rng(0))
    truth = np.array([one.box for one in placed], np.float32)
    for layout in options.layouts.split(","):
        with tempfile.TemporaryDirectory() as folder:
            path, out = Path(folder) / "large.tif", Path(folder) / "out"
            write_picture(path, options.side, placed, layout)
            words = ["predict", str(path), "--model", options.model, "--tiles", "--json", "--out", str(out)]
            words += ["--tile-size", str(options.tile_size), "--threshold", str(options.threshold)]
            began = time.monotonic()
            subprocess.run([sys.executable, "-m", "tood", *words], check=True)
            seconds = time.monotonic() - began
            usage = resource.getrusage(resource.RUSAGE_CHILDREN)
            megabytes = path.stat().st_size / 2**20
            print(
                f"{layout} ({megabytes:,.0f} MiB): {seconds:.0f} s, {usage.ru_utime + usage.ru_stime:.0f} s of a "
                f"processor so far, at most {usage.ru_maxrss / 2**20:.2f} GiB resident",
                flush=True,
            )
            (picture,) = json.loads((out / "predictions.json").read_text())
            boxes = np.array([one["box"] for one in picture["detections"]], np.float32).reshape(-1, 4)
            print(f"  {told(boxes, truth, options.side, options.tile_size)}", flush=True)


if __name__ == "__main__":
    main()
