"""Random scenes of priors, predictions and ground truths: the same ones for us and for every peer."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

CLASSES = 80
# (name, height, width, strides, ground truths); 22,400 and 8,400 priors.
LARGE = (800, 1344, (8, 16, 32, 64, 128))
SQUARE = (640, 640, (8, 16, 32))
ASSIGNMENT_SCENES = (
    ("22400x100", *LARGE, 100),
    ("22400x500", *LARGE, 500),
    ("8400x10", *SQUARE, 10),
    ("8400x500", *SQUARE, 500),
    ("8400x5000", *SQUARE, 5000),
)


@dataclass(frozen=True)
class Scene:
    """One image.

    Attributes:
        centres: [N, 2]; strides: [N]; shapes: (rows, columns) of each level.
        scores: [N, C] uniform in 0..1; boxes: [N, 4] around their priors.
        truth_boxes: [G, 4]; truth_labels: [G].
    """

    centres: Tensor
    strides: Tensor
    shapes: tuple[tuple[int, int], ...]
    scores: Tensor
    boxes: Tensor
    truth_boxes: Tensor
    truth_labels: Tensor


def scene(
    height: int,
    width: int,
    strides: tuple[int, ...],
    truths: int,
    *,
    half_cell: bool = False,
    seed: int | None = None,
) -> Scene:
    """A scene of an image; `half_cell` puts priors into the middle of their cells, as some peers have them.

    Of each number of ground truths there is one scene without a seed, and another one for each.
    """
    generator = torch.Generator().manual_seed(truths if seed is None else seed)
    shapes = tuple((math.ceil(height / stride), math.ceil(width / stride)) for stride in strides)
    centres = []
    for (rows, columns), stride in zip(shapes, strides, strict=True):
        row, column = torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij")
        centres.append((torch.stack([column, row], -1).reshape(-1, 2) + half_cell * 0.5) * stride)
    places = torch.cat(centres).float()
    stride_of = torch.cat(
        [torch.full((rows * columns,), float(s)) for (rows, columns), s in zip(shapes, strides, strict=True)]
    )
    # Boxes of predictions reach 2 to 62 pixels to each side; many objects in an image are small ones.
    reach = torch.rand(len(places), 4, generator=generator) * 60 + 2
    middle = torch.rand(truths, 2, generator=generator) * torch.tensor([float(width), float(height)])
    half = (torch.rand(truths, 2, generator=generator) * (60 if truths > 1000 else 150) + 8) / 2
    return Scene(
        centres=places,
        strides=stride_of,
        shapes=shapes,
        scores=torch.rand(len(places), CLASSES, generator=generator),
        boxes=torch.cat([places - reach[:, :2], places + reach[:, 2:]], 1),
        truth_boxes=torch.cat([middle - half, middle + half], 1),
        truth_labels=torch.randint(0, CLASSES, (truths,), generator=generator),
    )
