"""What is done with a fresh detector before requests come to it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from tood.errors import ToodError
from tood.inference import Detector
from tood.serving.batcher import detect_filled

# Pixels of a picture by which a box may differ alone and among others.
TOLERANCE = 1e-3
_HEIGHT, _WIDTH = 480, 640


def warm_up(detector: Detector, size: int) -> None:
    """Computes something, so that no request waits for what is done once; in batches, checks what they promise.

    Raises:
        ToodError: if a picture gets other boxes in another place of a batch, with other neighbours.
    """
    random = np.random.default_rng(0)
    pictures = [detector.prepare(random.integers(0, 256, (_HEIGHT, _WIDTH, 3), np.uint8)) for _ in range(min(size, 8))]
    former = detector.config
    # All that the network says is compared, however little it finds in noise.
    detector.config = replace(former, score_threshold=0.0)
    try:
        alone = detect_filled(detector, pictures[:1], size)[0]
        if size > 1:
            crowded = detect_filled(detector, [*pictures[1:], pictures[0]], size)[-1]
            same = len(alone) == len(crowded) and bool((alone.labels == crowded.labels).all())
            if not same or (len(alone) and float((alone.boxes - crowded.boxes).abs().max()) > TOLERANCE):
                raise ToodError(
                    f"in batches of {size} this machine gives a picture other boxes beside other pictures: serve with "
                    "--batch-size 1"
                )
    finally:
        detector.config = former
