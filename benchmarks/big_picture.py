"""A picture of 20,000 x 20,000 pixels looked at by tiles: memory, time, and what is found of objects whose places are
known, with and without a seam through them. Exits with 1 if a run has more than 2 GB resident, or finds a larger share
of the objects on seams twice than `--twice` says.

python -m benchmarks.big_picture --model runs/x/best.safetensors --data data/raccoon
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.tile_merging import Boxes, Placed, placements, score

_TILE = 512
# Bytes that a run may have resident.
_RESIDENT = 2 * 10**9


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


def found_twice(found: Boxes, truth: Boxes) -> float:
    """Share of the objects that have several boxes."""
    several = [sum(score(found, truth[[number]])[:2]) > 1 for number in range(len(truth))]
    return float(np.mean(several)) if several else 0.0


@dataclass(frozen=True)
class Usage:
    """What one process took: seconds, seconds of a processor, and bytes resident at most."""

    seconds: float
    cpu_seconds: float
    resident: int


# A process begins with the peak of the one that starts it, so that a small one has to, and not the one that wrote the
# picture. `wait4` tells of that run alone.
_STARTER = """
import json, os, subprocess, sys, time
began = time.monotonic()
run = subprocess.Popen(sys.argv[2:])
_, status, usage = os.wait4(run.pid, 0)
told = [time.monotonic() - began, usage.ru_utime + usage.ru_stime, usage.ru_maxrss]
with open(sys.argv[1], "w") as file:
    json.dump(told, file)
sys.exit(os.waitstatus_to_exitcode(status) != 0)
"""


def measured(command: Sequence[str]) -> Usage:
    """Runs a command, on Linux.

    Raises:
        CalledProcessError: if it fails.
    """
    with tempfile.TemporaryDirectory() as folder:
        told = Path(folder) / "usage.json"
        subprocess.run([sys.executable, "-S", "-c", _STARTER, str(told), *command], check=True)
        seconds, cpu_seconds, kibibytes = json.loads(told.read_text())
    return Usage(seconds, cpu_seconds, kibibytes * 1024)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True)
    parser.add_argument("--data", type=Path, required=True, help="a dataset whose photographs are laid out")
    parser.add_argument("--side", type=int, default=20_000)
    parser.add_argument("--tile-size", type=int, default=1024)
    parser.add_argument("--threshold", type=float, default=0.4)
    parser.add_argument("--layouts", default="tiled,striped,plain")
    parser.add_argument(
        "--twice", type=float, default=0.05, help="share of the objects on seams that may be found more than once"
    )
    options = parser.parse_args()
    failures = []
    placed = placements(options.data, options.side, np.random.default_rng(0))
    truth = np.array([one.box for one in placed], np.float32)
    for layout in options.layouts.split(","):
        with tempfile.TemporaryDirectory() as folder:
            path, out = Path(folder) / "large.tif", Path(folder) / "out"
            write_picture(path, options.side, placed, layout)
            words = ["predict", str(path), "--model", options.model, "--tiles", "--json", "--out", str(out)]
            words += ["--tile-size", str(options.tile_size), "--threshold", str(options.threshold)]
            usage = measured([sys.executable, "-m", "tood", *words])
            print(
                f"{layout} ({path.stat().st_size / 2**20:,.0f} MiB): {usage.seconds:.0f} s, {usage.cpu_seconds:.0f} s "
                f"of a processor, at most {usage.resident / 1e9:.2f} GB resident",
                flush=True,
            )
            if usage.resident > _RESIDENT:
                failures.append(f"{layout}: more than {_RESIDENT / 1e9:g} GB resident")
            (picture,) = json.loads((out / "predictions.json").read_text())
            boxes = np.array([one["box"] for one in picture["detections"]], np.float32).reshape(-1, 4)
            twice = found_twice(boxes, truth[on_a_seam(truth, options.side, options.tile_size)])
            print(f"  {told(boxes, truth, options.side, options.tile_size)}; {twice:.1%} on seams twice", flush=True)
            if twice > options.twice:
                failures.append(f"{layout}: {twice:.1%} of the objects on seams found twice, not {options.twice:.1%}")
    if failures:
        raise SystemExit("; ".join(failures))


if __name__ == "__main__":
    main()
