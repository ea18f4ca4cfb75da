"""Box sides as distributions over whole strides (GFL, Li et al. 2020, section 3.2): what a head's logits mean."""

from __future__ import annotations

import torch
from torch import Tensor

from tood.errors import SettingError, ToodError
from tood.models.common.sizes import MOST_BINS


def require_bins(bins: int) -> None:
    """Refuses a head's number of bins over which nothing is distributed.

    Raises:
        SettingError: if there are fewer than two, or more than are sensible.
    """
    if not 2 <= bins <= MOST_BINS:
        raise SettingError(
            "model.head.bins", f"is {bins}: a distribution needs two places or more, and {MOST_BINS:,} at most"
        )


def require_whole_bins(bins: Tensor, name: str) -> None:
    """Refuses the bins that a published file lists, if its distributions are not over 0, 1, 2, ...

    Averages of weights are rounded, and those of bins with them.

    Raises:
        ToodError: that names the tensor.
    """
    if bins.is_meta:
        return
    given = bins.flatten().float()
    if not torch.allclose(given, torch.arange(float(len(given))), rtol=1e-3, atol=1e-3):
        raise ToodError(f"{name} in it is not 0, 1, 2, ...: its distributions are over other places than tood's")


def side_distributions(regression: Tensor) -> Tensor:
    """[B, N, 4 * R] channels of a head -> logits [B, N, 4, R] of the bins 0 .. R - 1 of each side, a view.

    The sides are left, top, right, bottom.
    """
    return regression.view(*regression.shape[:2], 4, -1)


def expected_bins(distributions: Tensor) -> Tensor:
    """The mean of each distribution, in bins (equation 3): logits [..., R] -> [...] in 0..R - 1."""
    bins = torch.arange(distributions.shape[-1], device=distributions.device, dtype=distributions.dtype)
    # No matrix product, which autocast would compute in few bits.
    return (distributions.softmax(dim=-1) * bins).sum(dim=-1)
