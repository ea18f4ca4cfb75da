"""PAA's assignment written once more, with loops over objects, levels and priors.

The mixture is fitted by expectation maximisation as scikit-learn's `GaussianMixture(2, covariance_type="diag")` does it
from given starting values, of which the losses that come in are float32 and all else is float64.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from tood.boxes import iou_matrix
from tood.structures import Priors, Targets

EPSILON = np.finfo(np.float64).eps


def slow_candidates(priors: Priors, truth: Targets, valid: list[bool], least: float = 0.1) -> dict[int, int]:
    """Prior -> its ground truth, among the single objects: of the highest IoU, or whose best prior it is."""
    boxes = truth.boxes[~truth.crowd]
    iou = iou_matrix(boxes, priors.boxes)
    owners: dict[int, int] = {}
    if len(boxes) == 0:
        return owners
    for n in range(len(priors.centres)):
        best = max(range(len(boxes)), key=lambda g: (iou[g, n].item(), -g))
        if valid[n] and iou[best, n] >= least:
            owners[n] = best
    for g in range(len(boxes)):
        most = max((iou[g, n].item() for n in range(len(priors.centres)) if valid[n]), default=0.0)
        for n in range(len(priors.centres)):
            if valid[n] and iou[g, n].item() == most > 0:
                owners[n] = g
    return owners


def slow_densities(losses: list[float], steps: int = 100, tolerance: float = 1e-3) -> list[tuple[float, float]]:
    """Logarithms of both components' weighted densities at each loss; the losses rise."""
    x32 = np.array(losses, np.float32)
    x, squares = x32.astype(np.float64), (x32 * x32).astype(np.float64)
    means = [x[0], x[-1]]
    mean_squares = [squares[0], squares[-1]]
    variances, weights = [1.0, 1.0], [0.5, 0.5]

    def densities(i: int) -> tuple[float, float]:
        first, second = (
            math.log(weights[k])
            - 0.5 * math.log(2 * math.pi)
            - 0.5 * math.log(variances[k])
            - 0.5 * (mean_squares[k] - 2 * x[i] * means[k] + squares[i]) / variances[k]
            for k in (0, 1)
        )
        return first, second

    likelihood = -math.inf
    for _ in range(steps):
        each = [densities(i) for i in range(len(x))]
        total = [np.logaddexp(*pair) for pair in each]
        before, likelihood = likelihood, sum(total) / len(x)
        mass = [0.0, 0.0]
        for k in (0, 1):
            belongs = [math.exp(pair[k] - whole) for pair, whole in zip(each, total, strict=True)]
            mass[k] = sum(belongs) + 10 * EPSILON
            means[k] = sum(b * v for b, v in zip(belongs, x, strict=True)) / mass[k]
            mean_squares[k] = means[k] ** 2
            variances[k] = sum(b * v for b, v in zip(belongs, squares, strict=True)) / mass[k] - mean_squares[k] + 1e-6
            variances[k] = max(variances[k], 1e-9)  # scikit-learn raises an error from 0 down
        weights = [one / sum(mass) for one in mass]
        if abs(likelihood - before) < tolerance:
            break
    return [densities(i) for i in range(len(x))]


def slow_split(losses: list[float]) -> tuple[list[int], list[int]]:
    """Places among rising losses: of the positives, and of the lower component's losses beyond its densest one."""
    if len(losses) < 2:
        return [], []
    each = slow_densities(losses)
    lower = [i for i, (first, second) in enumerate(each) if first >= second]
    if not lower:
        return [], []
    peak = max(lower, key=lambda i: (np.logaddexp(*each[i]), -i))
    return [i for i in lower if i <= peak], [i for i in lower if i > peak]


def slow_paa(
    priors: Priors, truth: Targets, losses: Tensor, valid: list[bool], topk: int = 9
) -> tuple[dict[int, int], set[int]]:
    """Prior -> ground truth of the positives, and the priors that the lower component has beyond its peak."""
    owners = slow_candidates(priors, truth, valid)
    positives: dict[int, int] = {}
    uncertain: set[int] = set()
    for g in range(int((~truth.crowd).sum())):
        chosen: list[int] = []
        start = 0
        for size in priors.level_sizes:
            of_level = [n for n in range(start, start + size) if owners.get(n) == g]
            chosen += sorted(of_level, key=lambda n: (losses[n].item(), n))[:topk]
            start += size
        chosen.sort(key=lambda n: losses[n].item())
        found, beyond = slow_split([losses[n].item() for n in chosen])
        positives |= {chosen[i]: g for i in found}
        uncertain |= {chosen[i] for i in beyond}
    return positives, uncertain


def nested(count: int) -> Tensor:
    """[count, 4] boxes inside one another."""
    return torch.tensor([[2.0 + 2 * i, 1.0 + 2 * i, 78.0 - 3 * i, 62.0 - 2 * i] for i in range(count)])
