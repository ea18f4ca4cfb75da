"""Memory of detecting in very many images, one stream of them: `python -m benchmarks.streaming FOLDER`.

Takes the folder's images again and again until there are so many, and prints the memory of the process as it goes. It
must not grow; the network is a narrow one, as memory that stays behind would be the images' or the detections'.
"""

from __future__ import annotations

import argparse
import itertools
from dataclasses import replace
from pathlib import Path

import torch

from benchmarks.timing import THREADS, resident_memory
from tood.inference import Detector
from tood.models import build_model, named_model

MOST_GROWTH = 20  # MiB: what an allocator wavers by


def main() -> None:
    """Prints a line every tenth of the way, then by how much memory grew after the first."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--batch-size", type=int, default=4)
    arguments = parser.parse_args()
    torch.set_num_threads(THREADS)
    paths = sorted(path for path in arguments.folder.rglob("*") if path.suffix.lower() in (".jpg", ".jpeg", ".png"))
    config = named_model("tood_tiny").config()
    config = replace(config, input=replace(config.input, short=128, long=128))
    detector = Detector.from_model(build_model(config), [str(i) for i in range(config.classes)], "cpu")
    stream = detector.stream(
        itertools.islice(itertools.cycle(paths), arguments.images), batch_size=arguments.batch_size
    )
    first, part = 0.0, max(arguments.images // 10, 1)
    for count, _ in enumerate(stream, start=1):
        if count % part == 0:
            first = first or resident_memory()
            print(f"{count:,} images: {resident_memory():.0f} MiB", flush=True)
    growth = resident_memory() - first
    print(f"{growth:+.0f} MiB from the first line to the last")
    if growth > MOST_GROWTH:
        raise SystemExit(f"memory grew by more than {MOST_GROWTH} MiB")


if __name__ == "__main__":
    main()
