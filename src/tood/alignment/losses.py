"""The losses of dense detectors, element by element: no reduction, no weights, fp32 in and out.

Class losses work on probabilities, as the T-Head's scores are products of two sigmoids and have no logit.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from tood.boxes import giou_pairs


def focal_loss(probabilities: Tensor, targets: Tensor, alpha: float = 0.25, gamma: float = 2.0) -> Tensor:
    """Focal loss (Lin et al. 2017) of probabilities [...] against 0/1 targets [...] -> [...]."""
    missing = targets * (1 - probabilities) + (1 - targets) * probabilities
    balance = targets * alpha + (1 - targets) * (1 - alpha)
    return balance * missing.pow(gamma) * F.binary_cross_entropy(probabilities, targets, reduction="none")


def quality_focal_loss(probabilities: Tensor, targets: Tensor, beta: float = 2.0) -> Tensor:
    """|target - p|^beta * BCE(p, target) (TOOD, equation 6) against soft targets: [...], [...] -> [...]."""
    distance = (targets - probabilities).abs().pow(beta)
    return distance * F.binary_cross_entropy(probabilities, targets, reduction="none")


def giou_loss(boxes: Tensor, targets: Tensor) -> Tensor:
    """1 - GIoU of boxes at the same place: [..., 4], [..., 4] in one unit -> [...] in 0..2."""
    return 1 - giou_pairs(boxes, targets)
