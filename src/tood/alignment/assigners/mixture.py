"""Mixtures of two normal distributions in one dimension, fitted to many sets of numbers at once.

Expectation maximisation as scikit-learn's `GaussianMixture` does it from given starting values, to its very rounding
where that decides: published PAA networks were trained with it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

_LOG_TWO_PI = math.log(2 * math.pi)
# What keeps the mass of a component that nothing belongs to above 0.
_NO_MASS = 10 * torch.finfo(torch.float64).eps


@dataclass(frozen=True)
class MixtureFit:
    """How a mixture is fitted.

    Attributes:
        max_iterations: at most so many steps.
        tolerance: a set's fit ends where its mean log-likelihood changes by less in a step.
        regularisation: added to each variance.
    """

    max_iterations: int = 100
    tolerance: float = 1e-3
    regularisation: float = 1e-6


class Components(NamedTuple):
    """The two components of M mixtures, [M, 2, 1] float64 each."""

    means: Tensor
    mean_squares: Tensor
    roots: Tensor  # of the precisions: 1 over the standard deviations
    weights: Tensor

    def log_densities(self, values: Tensor, squares: Tensor) -> Tensor:
        """[M, 2, K] logarithms of each component's share of the density at the values [M, 1, K]."""
        precisions = self.roots.square()
        distance = self.mean_squares * precisions - 2 * (values * (self.means * precisions)) + squares * precisions
        return -0.5 * (_LOG_TWO_PI + distance) + self.roots.log() + self.weights.log()


@torch.no_grad()
def log_densities_of_two(values: Tensor, present: Tensor, fit: MixtureFit = MixtureFit()) -> Tensor:
    """Fits two components to each of M sets, the first starting at its smallest number, the second at its largest.

    Both start with a variance of 1 and half of the weight.

    Args:
        values: [M, K] float32.
        present: [M, K] bool, which of them are in the set.
        fit: how.

    Returns:
        [M, 2, K] float64, logarithms of each component's weighted density at every value; of no meaning where there is
        none. On a CPU it ends when all sets have, elsewhere after `max_iterations`, as asking would wait for the
        device. Memory: O(M * K).
    """
    inside = present[:, None]  # [M, 1, K]
    values = torch.where(present, values, 0.0)[:, None]
    # The reference squares in fp32 and computes all else in float64, and of narrow components that shows.
    squares, values = values.square().double(), values.double()
    number = inside.sum(dim=2, keepdim=True).clamp(min=1)
    low = torch.where(inside, values, math.inf).amin(dim=2, keepdim=True)
    high = torch.where(inside, values, -math.inf).amax(dim=2, keepdim=True)
    means = torch.where(inside.any(dim=2, keepdim=True), torch.cat([low, high], dim=1), 0.0)
    # They are of the numbers themselves, so that their squares are in fp32, too.
    found = Components(means, means.float().square().double(), torch.ones_like(means), torch.full_like(means, 0.5))
    likelihood = torch.full_like(low, -math.inf)
    ended = torch.zeros_like(low, dtype=torch.bool)
    for _ in range(fit.max_iterations):
        shares = found.log_densities(values, squares)
        density = torch.logaddexp(shares[:, :1], shares[:, 1:])  # [M, 1, K]
        before, likelihood = likelihood, torch.where(inside, density, 0.0).sum(dim=2, keepdim=True) / number
        belongs = torch.where(inside, (shares - density).exp(), 0.0)
        better = _most_likely(belongs, values, squares, fit.regularisation)
        found = Components(*(torch.where(ended, old, new) for old, new in zip(found, better, strict=True)))
        # A set that has ended keeps its components; what it still computes is not looked at.
        ended = ended | ((likelihood - before).abs() < fit.tolerance)
        if ended.device.type == "cpu" and bool(ended.all()):
            break
    return found.log_densities(values, squares)


def _most_likely(belongs: Tensor, values: Tensor, squares: Tensor, regularisation: float) -> Components:
    """The components of largest likelihood, where the values belong to them by [M, 2, K]."""
    mass = belongs.sum(dim=2, keepdim=True) + _NO_MASS
    means = (belongs * values).sum(dim=2, keepdim=True) / mass
    mean_squares = means.square()
    variances = (belongs * squares).sum(dim=2, keepdim=True) / mass - mean_squares + regularisation
    # Rounding of large numbers may outweigh the variance of equal ones; the reference gives up there.
    variances = variances.clamp(min=1e-3 * regularisation)
    return Components(means, mean_squares, variances.sqrt().reciprocal(), mass / mass.sum(dim=1, keepdim=True))
