"""Pictures to calibrate and to compare on."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from tood.data import load_dataset, pick_splits, read_image
from tood.data.digits import load_scans, render_scene
from tood.errors import ToodError
from tood.inference import expand
from tood.input import InputConfig, normalise, prepare, stacked

# Pictures that the ranges of values are learnt from, at most.
CALIBRATING = 128
# Pictures that results are compared on.
COMPARED = 6


def pictures_of(source: str | None, count: int) -> list[NDArray[np.uint8]]:
    """[H, W, 3] uint8 RGB: of a dataset or a folder of pictures, spread over it; None takes built-in scenes of digits.

    Raises:
        ToodError: if there is no picture there.
    """
    if source is None:
        scans = load_scans("test")
        return [render_scene(scans, np.random.default_rng(number)).image for number in range(count)]
    found = list(islice(_paths(source), 100_000))
    if not found:
        raise ToodError(f"there is no picture in {source}: name a dataset or a folder of pictures")
    step = max(len(found) // count, 1)
    return [read_image(path) for path in found[::step][:count]]


def prepared_images(pictures: list[NDArray[np.uint8]], config: InputConfig) -> Iterator[NDArray[np.float32]]:
    """Each picture [1, 3, h, w] float32 as the network wants it."""
    for picture in pictures:
        image, geometry = prepare(picture, config)
        pixels = torch.from_numpy(stacked([image], config)).permute(0, 3, 1, 2)
        yield normalise(pixels, torch.tensor([geometry.canvas]), config).contiguous().numpy()


def _paths(source: str) -> Iterator[Path]:
    if Path(source).is_dir():
        for image in expand(source):
            if image.path is not None:
                yield Path(image.path)
        return
    dataset = load_dataset(source, pick_splits(source).evaluation)
    yield from (Path(record.path) for record in dataset.images)
