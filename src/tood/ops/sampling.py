"""Values of maps read at places between cells, each channel at places of its own."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def sampled_at_offsets(maps: Tensor, offsets: Tensor) -> Tensor:
    """Every value of a map read from a neighbouring place.

    On a GPU the gradient of `grid_sample` adds up in another order each time, and PyTorch refuses it where it was told
    to be deterministic: there four gathers take its place.

    Args:
        maps: [B, K, h, w].
        offsets: [B, 2 * K, h, w] a (dy, dx) pair in cells for each of the K values.

    Returns:
        [B, K, h, w]: each read bilinearly at (y + dy, x + dx), with zeros outside the map.
    """
    if torch.are_deterministic_algorithms_enabled() and maps.device.type != "cpu":
        return gathered_at_offsets(maps, offsets)
    return plain_sampled_at_offsets(maps, offsets)


def plain_sampled_at_offsets(maps: Tensor, offsets: Tensor) -> Tensor:
    """The definition of `sampled_at_offsets` in ordinary PyTorch."""
    height, width = maps.shape[2:]
    y, x = _places(maps, offsets)  # [B * K, h, w] each
    # grid_sample's coordinates: -1 and 1 are the map's outer edges, cells lie at (2 i + 1) / size - 1.
    grid = torch.stack([(2 * x + 1) / width - 1, (2 * y + 1) / height - 1], dim=-1)
    edges = maps.reshape(-1, 1, height, width)
    sampled = F.grid_sample(edges, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
    return sampled.view(maps.shape)


def gathered_at_offsets(maps: Tensor, offsets: Tensor) -> Tensor:
    """The same but for rounding, by index: the gradient of `gather` is deterministic wherever PyTorch is told to be."""
    height, width = maps.shape[2:]
    y, x = _places(maps, offsets)
    top, left = y.detach().floor(), x.detach().floor()
    below, right = y - top, x - left  # in 0..1
    values = maps.reshape(len(y), -1)  # [B * K, h * w]
    total = torch.zeros_like(y)
    for row, by_row in ((top, 1 - below), (top + 1, below)):
        for column, by_column in ((left, 1 - right), (left + 1, right)):
            inside = (row >= 0) & (row < height) & (column >= 0) & (column < width)
            # Outside, also where a place is no number, any cell is read and counts nothing.
            cell = torch.where(inside, row, 0.0).long() * width + torch.where(inside, column, 0.0).long()
            read = values.gather(1, cell.flatten(1)).view_as(y)
            total = total + read * torch.where(inside, by_row * by_column, 0.0)
    return total.view(maps.shape)


def _places(maps: Tensor, offsets: Tensor) -> tuple[Tensor, Tensor]:
    """Rows and columns that are read, in cells, [B * K, h, w] each."""
    batch, count, height, width = maps.shape
    rows = torch.arange(height, device=maps.device, dtype=maps.dtype)[:, None]
    columns = torch.arange(width, device=maps.device, dtype=maps.dtype)
    dy, dx = offsets.reshape(batch * count, 2, height, width).unbind(1)
    return rows + dy, columns + dx
