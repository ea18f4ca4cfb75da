"""Memory while very many images are detected in, one stream of them: it must not grow.

The network is a narrow one: memory that stays behind would be the images' or the detections'. A folder of pictures may
be named: `python -m benchmarks.rows_stream FOLDER`.
"""

from __future__ import annotations

import itertools
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import torch

from benchmarks.rows_data import write_pictures
from benchmarks.timing import QUICK, THREADS, emit, resident_memory
from tood.inference import Detector
from tood.models import build_model
from tood.zoo import named_model

IMAGES = 500 if QUICK else 10_000


def grown(paths: list[Path]) -> float:
    """MiB from a tenth of the way to its end."""
    config = named_model("tood_tiny").config()
    config = replace(config, input=replace(config.input, short=128, long=128))
    detector = Detector.from_model(build_model(config), [str(i) for i in range(config.classes)], "cpu")
    stream = detector.stream(itertools.islice(itertools.cycle(paths), IMAGES), batch_size=4)
    for count, _ in enumerate(stream, start=1):
        if count == IMAGES // 10:
            before = resident_memory()
    return resident_memory() - before


def main() -> None:
    """Prints it."""
    torch.set_num_threads(THREADS)
    with tempfile.TemporaryDirectory() as folder:
        named = [path for name in sys.argv[1:] for path in sorted(Path(name).rglob("*.jpg"))]
        emit("memory grown over a stream", max(0.0, grown(named or write_pictures(Path(folder)))), "MiB")


if __name__ == "__main__":
    main()
