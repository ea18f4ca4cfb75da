"""Box sides as distributions over whole strides (GFL, Li et al. 2020, section 3.2): what a head's logits mean."""

from __future__ import annotations

import torch
from torch import Tensor


def side_distributions(maps: Tensor) -> Tensor:
    """A map [B, 4 * R, h, w] as logits [B, h * w, 4, R] of the bins 0 .. R - 1 of the left, top, right, bottom side."""
    return torch.unflatten(maps.flatten(2).transpose(1, 2), 2, (4, -1))


def expected_bins(distributions: Tensor) -> Tensor:
    """The mean of each distribution, in bins (equation 3): logits [..., R] -> [...] in 0..R - 1."""
    bins = torch.arange(distributions.shape[-1], device=distributions.device, dtype=distributions.dtype)
    return distributions.softmax(dim=-1) @ bins
