"""Where a dense head predicts from."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from tood.structures import Priors

# What predicted deltas of an anchor's centre and (logarithmic) size are multiplied by.
DELTA_STDS = (0.1, 0.1, 0.2, 0.2)


def grid_priors(maps: Sequence[Tensor], strides: Sequence[int], anchor_scale: float, offset: float = 0.0) -> Priors:
    """One prior a cell, at ((x + offset) * stride, (y + offset) * stride).

    Args:
        maps: one feature map [B, C, h, w] a level.
        strides: input pixels a cell, one a level.
        anchor_scale: side of the square anchors, in strides.
        offset: 0 is the cell's corner, where TOOD's priors are, 0.5 its middle.

    Returns:
        N = sum of h * w priors in input pixels, row by row, level by level.
    """
    centres, strides_of = [], []
    for features, stride in zip(maps, strides, strict=True):
        height, width = features.shape[2:]
        y = torch.arange(height, device=features.device, dtype=torch.float32) * stride + offset * stride
        x = torch.arange(width, device=features.device, dtype=torch.float32) * stride + offset * stride
        rows, columns = torch.meshgrid(y, x, indexing="ij")
        centres.append(torch.stack([columns, rows], dim=-1).reshape(-1, 2))
        strides_of.append(torch.full((height * width,), float(stride), device=features.device))
    stride_values = torch.cat(strides_of)
    shapes = tuple((features.shape[2], features.shape[3]) for features in maps)
    return Priors(torch.cat(centres), stride_values * anchor_scale, stride_values, shapes)
