"""Pictures to calibrate and to compare on."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from tood.data import DetectionDataset, load_dataset, read_image
from tood.data.digits import load_scans, render_scene
from tood.errors import ToodError
from tood.inference import expand
from tood.input import InputConfig, normalise, prepare, stacked

# Pictures that the ranges of values are learnt from, at most.
CALIBRATING = 128
# Pictures that results are compared on.
COMPARED = 6


def pictures_of(source: str | DetectionDataset | None, count: int) -> list[NDArray[np.uint8]]:
    """[H, W, 3] uint8 RGB, spread over what is given.

    Args:
        source: a dataset's split; a dataset, of which the split that one trains on is taken; a folder of pictures; None
            takes built-in scenes of digits.
        count: how many at most.

    Raises:
        ToodError: if there is no picture there, or one of them cannot be read.
    """
    if source is None:
        scans = load_scans("test")
        return [render_scene(scans, np.random.default_rng(number)).image for number in range(count)]
    return [read_image(path) for path in _spread(source, count)]


def require_pictures(source: str | DetectionDataset, count: int) -> None:
    """Looks at each of the pictures that `pictures_of` gives, before work that would end at one that is none.

    Raises:
        ToodError: if there is no picture there, or one of them cannot be read.
    """
    for path in _spread(source, count):
        read_image(path)


def _spread(source: str | DetectionDataset, count: int) -> list[Path]:
    if isinstance(source, str):
        found = list(islice(_paths(source), 100_000))
    else:
        found = [Path(record.path) for record in source.images]
    if not found:
        named = source if isinstance(source, str) else source.root
        raise ToodError(f"there is no picture in {named}: name a dataset or a folder of pictures")
    step = max(len(found) // count, 1)
    return found[::step][:count]


def prepared_images(
    pictures: list[NDArray[np.uint8]], config: InputConfig, batch: int = 1
) -> Iterator[NDArray[np.float32]]:
    """Each picture [B, 3, h, w] float32 as the network wants it, B times for a network that takes no fewer."""
    for picture in pictures:
        image, geometry = prepare(picture, config)
        pixels = torch.from_numpy(stacked([image] * batch, config)).permute(0, 3, 1, 2)
        yield normalise(pixels, torch.tensor([geometry.canvas] * batch), config).contiguous().numpy()


def _paths(source: str) -> Iterator[Path]:
    """Of a dataset the pictures that one trains on: those that AP is measured on are none of what is learnt from."""
    try:
        dataset = load_dataset(source)
    except ToodError:  # no dataset; what cannot be read at all is told by what reads pictures
        yield from (Path(image.path) for image in expand(source) if image.path is not None)
    else:
        yield from (Path(record.path) for record in dataset.images)
