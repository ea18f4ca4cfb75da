"""The losses of dense detectors, element by element: no reduction, no weights, fp32 in and out.

Class losses take probabilities, as the T-Head's scores are products of two sigmoids and have no logit, or logits, whose
cross entropy stays exact where a probability would round to 0 or 1.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from tood.boxes import common_share_pairs, giou_pairs, iou_pairs


def focal_loss(
    scores: Tensor, targets: Tensor, alpha: float = 0.25, gamma: float = 2.0, *, logits: bool = False
) -> Tensor:
    """Focal loss (Lin et al. 2017) of probabilities or logits [...] against 0/1 targets [...] -> [...]."""
    probabilities = scores.sigmoid() if logits else scores
    missing = targets * (1 - probabilities) + (1 - targets) * probabilities
    balance = targets * alpha + (1 - targets) * (1 - alpha)
    return balance * missing.pow(gamma) * binary_cross_entropy(scores, targets, logits=logits)


def quality_focal_loss(scores: Tensor, targets: Tensor, beta: float = 2.0, *, logits: bool = False) -> Tensor:
    """|target - p|^beta * BCE(p, target) (TOOD, equation 6) of probabilities or logits against soft targets: [...]."""
    probabilities = scores.sigmoid() if logits else scores
    distance = (targets - probabilities).abs().pow(beta)
    return distance * binary_cross_entropy(scores, targets, logits=logits)


def varifocal_loss(
    scores: Tensor, targets: Tensor, labels: Tensor, alpha: float = 0.75, gamma: float = 2.0, *, logits: bool = False
) -> Tensor:
    """Varifocal loss (VarifocalNet, Zhang et al. 2021, equation 2) of probabilities or logits [...] -> [...].

    The cross entropy with the target, which weighs as much as that on the label, and alpha * p^gamma elsewhere; the
    gradient flows through that weight too, as PaddleDetection has it.

    Args:
        scores: [...].
        targets: [...] soft, 0 where there is no object of the class.
        labels: [...] 0 or 1: whether there is one.
        alpha, gamma: see above.
        logits: whether the scores are.
    """
    probabilities = scores.sigmoid() if logits else scores
    weight = torch.where(labels > 0, targets, alpha * probabilities.pow(gamma))
    return weight * binary_cross_entropy(scores, targets, logits=logits)


def giou_loss(boxes: Tensor, targets: Tensor) -> Tensor:
    """1 - GIoU of boxes at the same place: [..., 4], [..., 4] in one unit -> [...] in 0..2."""
    return 1 - giou_pairs(boxes, targets)


def distribution_focal_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """Distribution focal loss (GFL, Li et al. 2020, equation 6): how far a distribution is from its two nearest bins.

    The cross entropy with the bins on both sides of the target, each weighing what it is nearer.

    Args:
        logits: [..., R] of the bins 0 .. R - 1.
        targets: [...] in bins, from 0 to R - 1.

    Returns:
        [...] one loss a distribution.
    """
    left = targets.floor().clamp(max=logits.shape[-1] - 2)
    share = targets - left  # of the bin on the right
    bins = torch.stack([left, left + 1], dim=-1).long()
    weights = torch.stack([1 - share, share], dim=-1)
    # -(w_l ln p_l + w_r ln p_r), where both weights add up to 1.
    return logits.logsumexp(dim=-1) - (logits.gather(-1, bins) * weights).sum(dim=-1)


def squared_iou_loss(boxes: Tensor, targets: Tensor) -> Tensor:
    """1 - IoU^2 of boxes at the same place (YOLOX): [..., 4], [..., 4] in one unit -> [...] in 0..1."""
    return 1 - iou_pairs(boxes, targets).square()


def hull_loss(boxes: Tensor, targets: Tensor) -> Tensor:
    """1 - IoU and the share of the hull that boxes at the same place do not have in common (YOLOX-PAI's "GIoU").

    [..., 4], [..., 4] in one unit -> [...] in 0..2; equal boxes have 0.
    """
    return 1 - common_share_pairs(boxes, targets).clamp(-1, 1)


def binary_cross_entropy(scores: Tensor, targets: Tensor, *, logits: bool = False) -> Tensor:
    """-(target log p + (1 - target) log(1 - p)) of probabilities or logits [...] against targets [...] -> [...]."""
    if logits:
        return F.binary_cross_entropy_with_logits(scores, targets, reduction="none")
    return F.binary_cross_entropy(scores, targets, reduction="none")
