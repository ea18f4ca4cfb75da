"""The anchor alignment metric (TOOD, equation 3)."""

from __future__ import annotations

from torch import Tensor


def alignment_metric(scores: Tensor, ious: Tensor, alpha: float = 1.0, beta: float = 6.0) -> Tensor:
    """t = s^alpha * u^beta: high only where the class score and the box are both good.

    Args:
        scores: [...] probability of the ground truth's class.
        ious: [...] overlap of the predicted box with the ground truth.
        alpha, beta: how much classification and localisation count.

    Returns:
        [...] t in 0..1.
    """
    # The published exponents are whole or one half: products and square roots instead of a general power.
    return _power(scores, alpha) * _power(ious, beta)


def _power(base: Tensor, exponent: float) -> Tensor:
    if exponent == 1:
        return base
    if exponent == 6:
        cube = base * base * base
        return cube * cube
    return base.pow(exponent)
