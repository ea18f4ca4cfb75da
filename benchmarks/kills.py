"""Kills runs of `tood video` and `tood predict --tiles` at random moments, resumes them, and compares what they end
with to runs that were left alone: byte for byte. The runs are forked off a process that has loaded Python and PyTorch,
so that a moment by chance is one of the run, not of its start.

python -m benchmarks.kills --kills 100
"""

from __future__ import annotations

import argparse
import os
import random
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from multiprocessing import get_all_start_methods, get_context
from multiprocessing.process import BaseProcess
from pathlib import Path

import numpy as np
import torch

# Seconds that a run of this size never takes.
LONGEST = 600


def make_model(path: Path) -> Path:
    """Weights of a network that a frame takes milliseconds of."""
    from tood.input import InputConfig
    from tood.models import build_model
    from tood.weights import save_weights
    from tood.zoo import named_models

    torch.manual_seed(0)
    config = named_models()["tood_tiny"].config()
    few = replace(config.postprocess, max_detections=12)
    model = build_model(replace(config, classes=2, input=InputConfig(short=64, long=64), postprocess=few))
    # An untrained network is sure of nothing: lift its scores over the thresholds.
    for layer in (model.head.classifier, model.head.classification_alignment[-1]):
        torch.nn.init.constant_(layer.bias, 1.0)
    save_weights(path, model, ["cat", "dog"])
    return path


def make_video(path: Path, frames: int, size: tuple[int, int] = (96, 64), codec: str = "libx264") -> Path:
    """A film of a bright square that moves, with B frames and noise."""
    import av

    width, height = size
    noise = np.random.default_rng(0).integers(0, 60, (height, width, 3), dtype=np.uint8)
    # The same film on every processor.
    options = {"g": "50", "x264-params": "cpu-independent=1"} if codec == "libx264" else {}
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=25, options=options)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for number in range(frames):
            picture = np.roll(noise, number, axis=1).copy()
            at = (3 * number) % (width - 24)
            picture[16:40, at : at + 24] = 230
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts = number
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def make_picture(path: Path, side: int) -> Path:
    """A tiled, compressed TIFF with bright squares all over, on seams too."""
    import tifffile

    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 60, (side, side, 3), dtype=np.uint8)
    for y, x in rng.integers(0, side - 30, (side * side // 8000, 2)):
        pixels[y : y + 24, x : x + 24] = 230
    tifffile.imwrite(path, pixels, tile=(128, 128), photometric="rgb", compression="zlib")
    return path


def start(words: Sequence[object], told: Path, first: Callable[[], object] = int) -> BaseProcess:
    """`tood` with these words in a process of its own, which says what it says into a file, and calls `first`."""
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    context = get_context("forkserver" if "forkserver" in get_all_start_methods() else "spawn")
    if hasattr(context, "set_forkserver_preload"):
        context.set_forkserver_preload(["tood.cli", "tood.inference", "tood.video.results", "av", "trackers"])
    process = context.Process(target=_tood, args=([str(word) for word in words], told, first), daemon=True)
    process.start()
    return process


def _tood(words: Sequence[str], told: Path, first: Callable[[], object]) -> None:
    first()
    with told.open("wb") as file:
        for descriptor in (1, 2):
            os.dup2(file.fileno(), descriptor)
    from tood.cli import app

    app(words, prog_name="tood")


def finish(words: Sequence[object], told: Path) -> float:
    """Runs it to its end; the seconds that it took."""
    began = time.monotonic()
    process = start(words, told)
    process.join(LONGEST)
    if process.exitcode != 0:
        raise SystemExit(f"{' '.join(map(str, words))} ended with {process.exitcode}:\n{told.read_text()}")
    return time.monotonic() - began


def results(folder: Path) -> dict[str, bytes]:
    """What a person finds in a folder."""
    return {path.name: path.read_bytes() for path in folder.iterdir() if not path.name.startswith(".")}


def survive(words: Sequence[object], folder: Path, kills: int, rng: random.Random) -> int:
    """Runs a command once untouched, then killed again and again until so many kills are spent; number of whole runs.

    Args:
        words: the command, without --out.
        folder: for both.
        kills: how many.
        rng: chooses the moments.

    Raises:
        SystemExit: if any run ends with other files than the one left alone.
    """
    alone, told = folder / "alone", folder / "told.txt"
    folder.mkdir(parents=True, exist_ok=True)
    finish([*words, "--out", folder / "first"], told)  # whose time has what is loaded once for all in it
    lasts = finish([*words, "--out", alone], told)
    wanted, rounds, spent = results(alone), 0, 0
    while spent < kills:
        out = folder / f"killed-{rounds}"
        run = [*words, "--out", out, "--resume"]
        ended: int | None = None
        while spent < kills and ended is None:
            process = start(run, told)
            process.join(rng.uniform(0, lasts))
            ended = process.exitcode
            if ended is None:
                process.kill()
                process.join()
                spent += 1
        if ended:
            raise SystemExit(f"{' '.join(map(str, run))} ended with {ended}:\n{told.read_text()}")
        if ended is None:
            finish(run, told)
        found = results(out)
        if found != wanted:
            other = [name for name in wanted.keys() | found.keys() if found.get(name) != wanted.get(name)]
            raise SystemExit(f"after {spent} kills {out} differs in {', '.join(sorted(other))}")
        left = [path.name for path in out.iterdir() if ".unfinished" in path.name or ".tiles-" in path.name]
        if left:
            raise SystemExit(f"{out} still holds {', '.join(left)}")
        rounds += 1
    return rounds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=100, help="a quarter each of two video runs, half of tiles runs")
    parser.add_argument("--only", choices=["bytetrack", "botsort", "tiles"], help="its share alone")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--frames", type=int, default=700)
    parser.add_argument("--side", type=int, default=1500)
    parser.add_argument("--folder", type=Path, help="to keep everything in; else a temporary one")
    options = parser.parse_args()
    rng = random.Random(options.seed)
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.folder or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        model = make_model(folder / "tiny.safetensors")
        video = make_video(folder / "film.mp4", options.frames)
        picture = make_picture(folder / "large.tif", options.side)
        watch = ("video", video, "--model", model, "--threshold", 0.1, "--jsonl", "--csv", "--parquet")
        places = ("--line", "middle=48,0,48,64", "--zone", "left=0,0,40,0,40,64,0,64")
        tiles = ("predict", picture, "--model", model, "--tiles", "--json", "--csv", "--batch-size", 4)
        quarter = options.kills // 4
        runs: dict[str, tuple[str, int, tuple[object, ...]]] = {
            "bytetrack": ("ByteTrack, a line and a zone", quarter, (*watch, "--track", "bytetrack", *places)),
            "botsort": ("BoT-SORT, 4 frames a batch", quarter, (*watch, "--track", "botsort", "--batch-size", 4)),
            "tiles": ("tiles", options.kills - 2 * quarter, tiles),
        }
        for kind, (name, share, words) in runs.items():
            if options.only in (None, kind):
                rounds = survive(words, folder / kind, share, rng)
                print(f"{name}: {share} kills in {rounds} runs, each byte for byte the run left alone", flush=True)


if __name__ == "__main__":
    main()
