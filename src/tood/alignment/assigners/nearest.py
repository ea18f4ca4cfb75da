"""The places of a grid that are nearest to points.

Of the k nearest places none lies both in a far row and in a far column: rows and columns are ranked by their distance,
and only places whose two ranks multiply to little are measured. Which of several equally near ones `torch.topk` takes
depends on all of a row's values, and so do the reference's assignments: points with such a tie are measured against all
places.
"""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor

from tood.alignment.assigners.assignment import block_size


def nearest(
    places: Tensor, shape: tuple[int, int], points: Tensor, valid: Tensor | None, k: int
) -> tuple[Tensor, Tensor]:
    """The k places nearest to each point; of equally near ones those that `torch.topk` takes of all.

    Args:
        places: [H * W, 2] row by row; columns share their x, rows their y.
        shape: H, W.
        points: [B, G, 2].
        valid: [B, H * W] bool, False on places that count as infinitely far; None for all valid.
        k: at most H * W.

    Returns:
        [B, G, k] distances in rising order, and indices of the places. Memory: O(B * G * (H + W + k log k)) on a CPU
        where valid places are whole rows and columns; else O(B * G * k); and blocks of 8 MiB (on a GPU 64).
    """
    batch, count, _ = points.shape
    if places.device.type == "cpu" and _is_grid(valid, shape):  # a GPU would have to wait for the answer
        distances, indices, tied = _nearest_on_grid(places, shape, points, valid, k)
        image, point = tied.nonzero(as_tuple=True)
        if len(image):
            distances[image, point], indices[image, point] = _nearest_of_all(
                places, points[image, point], image, valid, k
            )
        return distances, indices
    image = torch.arange(batch, device=places.device).repeat_interleave(count, output_size=batch * count)
    distances, indices = _nearest_of_all(places, points.flatten(0, 1), image, valid, k)
    return distances.view(batch, count, k), indices.view(batch, count, k)


def _nearest_of_all(
    places: Tensor, points: Tensor, image: Tensor, valid: Tensor | None, k: int
) -> tuple[Tensor, Tensor]:
    """`nearest` for points [P, 2] of the images [P], from all distances."""
    parts = []
    for part in torch.split(torch.arange(len(points), device=points.device), block_size(1, len(places), places.device)):
        distance = (points[part, None] - places).square().sum(dim=-1).sqrt()  # [p, n]
        if valid is not None:
            distance = distance.masked_fill(~valid[image[part]], torch.inf)
        parts.append(distance.topk(k, dim=1, largest=False))
    return torch.cat([values for values, _ in parts]), torch.cat([index for _, index in parts])


def _is_grid(valid: Tensor | None, shape: tuple[int, int]) -> bool:
    """Whether the valid places are whole rows and columns, as an image's padding leaves them."""
    if valid is None:
        return True
    grid = valid.view(-1, *shape)
    return torch.equal(grid, grid.any(dim=2, keepdim=True) & grid.any(dim=1, keepdim=True))


def _nearest_on_grid(
    places: Tensor, shape: tuple[int, int], points: Tensor, valid: Tensor | None, k: int
) -> tuple[Tensor, Tensor, Tensor]:
    """`nearest` where the valid places are a grid; and [B, G] whether more places are as near as the last one taken."""
    height, width = shape
    horizontal = (points[..., :1] - places[:width, 0]).square()  # [B, G, W]
    vertical = (points[..., 1:] - places[::width, 1]).square()  # [B, G, H]
    if valid is not None:
        grid = valid.view(-1, height, width)
        horizontal = horizontal.masked_fill(~grid.any(dim=1, keepdim=True), torch.inf)
        vertical = vertical.masked_fill(~grid.any(dim=2)[:, None], torch.inf)
    # One more than k: the first that is left out tells a tie.
    row_rank, column_rank = _ranks(height, width, k + 1)
    columns = horizontal.topk(int(column_rank.max()) + 1, dim=2, largest=False)
    rows = vertical.topk(int(row_rank.max()) + 1, dim=2, largest=False)
    # The sum of two squares as a matrix of distances has it: x first.
    squares = columns.values[..., column_rank] + rows.values[..., row_rank]  # [B, G, M]
    found = squares.sqrt().topk(min(k + 1, squares.shape[2]), dim=2, largest=False)
    indices = (rows.indices[..., row_rank] * width + columns.indices[..., column_rank]).gather(
        2, found.indices[..., :k]
    )
    distances = found.values[..., :k]
    tied = torch.zeros(points.shape[:2], dtype=torch.bool)
    if found.values.shape[2] > k:
        last, next_one = found.values[..., k - 1], found.values[..., k]
        tied = (last == next_one) & last.isfinite()
    return distances.contiguous(), indices, tied


@lru_cache(maxsize=64)
def _ranks(height: int, width: int, k: int) -> tuple[Tensor, Tensor]:
    """Ranks, from 0, of the rows and columns of all places that may be among the k nearest, [M] each.

    A place with a rows and b columns before its own has a * b + a + b places before it. Rows at the same distance on
    both sides of a point may be told apart by rounding alone: one row and one column fewer are counted.
    """
    row, column = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    surely_before = (row - 1).clamp(min=0) + 1
    before = surely_before * ((column - 1).clamp(min=0) + 1) - 1
    near = before < k
    return row[near], column[near]
