"""Kills runs of `tood video` and `tood predict --tiles` at random moments, resumes them, and compares what they end
with to runs that were left alone: byte for byte.

python -m benchmarks.kills --kills 100
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
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
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=25, options={"g": "50"} if codec == "libx264" else {})
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


def command(*words: object) -> list[str]:
    return [sys.executable, "-m", "tood", *map(str, words)]


def start(words: Sequence[str], told: Path) -> subprocess.Popen[bytes]:
    """The command in a session of its own, which says what it says into a file."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with told.open("wb") as file:
        return subprocess.Popen(words, stdout=file, stderr=file, env=environment, start_new_session=True)


def finish(words: Sequence[str], told: Path) -> float:
    """Runs it to its end; the seconds that it took."""
    began = time.monotonic()
    process = start(words, told)
    if process.wait(LONGEST):
        raise SystemExit(f"{' '.join(words)} ended with {process.returncode}:\n{told.read_text()}")
    return time.monotonic() - began


def results(folder: Path) -> dict[str, bytes]:
    """What a person finds in a folder."""
    return {path.name: path.read_bytes() for path in folder.iterdir() if not path.name.startswith(".")}


def survive(words: Sequence[str], folder: Path, kills: int, rng: random.Random, *, later: float = 0.0) -> int:
    """Runs a command once untouched, then killed again and again until so many kills are spent; number of whole runs.

    Args:
        words: the command, without --out.
        folder: for both.
        kills: how many.
        rng: chooses the moments.
        later: seconds within which nothing is killed: until Python has started.

    Raises:
        SystemExit: if any run ends with other files than the one left alone.
    """
    alone, told = folder / "alone", folder / "told.txt"
    folder.mkdir(parents=True, exist_ok=True)
    lasts = finish([*words, "--out", str(alone)], told)
    wanted, rounds, spent = results(alone), 0, 0
    while spent < kills:
        out = folder / f"killed-{rounds}"
        run = [*words, "--out", str(out), "--resume"]
        ended: int | None = None
        while spent < kills and ended is None:
            process = start(run, told)
            time.sleep(rng.uniform(later, lasts))
            ended = process.poll()
            if ended is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
                spent += 1
        if ended:
            raise SystemExit(f"{' '.join(run)} ended with {ended}:\n{told.read_text()}")
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
    parser.add_argument("--kills", type=int, default=100, help="of video runs and of tiles runs, half each")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--frames", type=int, default=700)
    parser.add_argument("--side", type=int, default=1500)
    parser.add_argument("--later", type=float, default=0.0, help="seconds without a kill at a run's beginning")
    parser.add_argument("--folder", type=Path, help="to keep everything in; else a temporary one")
    options = parser.parse_args()
    rng = random.Random(options.seed)
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.folder or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        model = make_model(folder / "tiny.safetensors")
        video = make_video(folder / "film.mp4", options.frames)
        picture = make_picture(folder / "large.tif", options.side)
        watch = command("video", video, "--model", model, "--threshold", 0.1, "--jsonl", "--csv", "--parquet")
        runs = {
            "video, ByteTrack, a line and a zone": [
                *watch,
                *("--track", "bytetrack", "--line", "middle=48,0,48,64", "--zone", "left=0,0,40,0,40,64,0,64"),
            ],
            "video, BoT-SORT, 4 frames a batch": [*watch, "--track", "botsort", "--batch-size", "4"],
            "tiles": command("predict", picture, "--model", model, "--tiles", "--json", "--csv", "--batch-size", 4),
        }
        shares = {"tiles": options.kills - options.kills // 2}
        for name, words in runs.items():
            share = shares.get(name, options.kills // 4)
            rounds = survive(words, folder / name.split(",")[-1].strip(), share, rng, later=options.later)
            print(
                f"{name}: {share} kills in {rounds} runs, each equal to the run left alone, byte for byte", flush=True
            )


if __name__ == "__main__":
    main()
