"""What an assigner is given (padded ground truth) and what it gives (an `Assignment`), for a whole batch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from tood.boxes import Overlap, iou_pairs, overlap_pairs
from tood.structures import Targets

# Ground truths are taken in blocks of so many (image, ground truth, prior) triples: 2 Mi, 8 MiB each temporary; on a
# GPU 16 Mi, 64 MiB, where smaller ones take four times as long (docs/benchmarks-gpu.md).
# It bounds memory whatever the number of objects; the loop runs over blocks, not over ground truths.
BLOCK, GPU_BLOCK = 1 << 21, 1 << 24


def block_size(batch: int, priors: int, device: torch.device) -> int:
    """Ground truths of an image that are taken at once, for so many images and priors."""
    return max(1, (GPU_BLOCK if device.type == "cuda" else BLOCK) // (batch * priors))


@dataclass(frozen=True)
class PaddedTargets:
    """The ground truths of a batch in one tensor each, those of an image's single objects first.

    Attributes:
        boxes: [B, G, 4] x1 y1 x2 y2 in input pixels, G the largest number of boxes in one image.
        labels: [B, G] int64 class index.
        present: [B, G] bool, False on crowds, which are never positives, and on padding.
    """

    boxes: Tensor
    labels: Tensor
    present: Tensor

    @staticmethod
    def of(targets: Sequence[Targets]) -> PaddedTargets:
        """Pads the images' boxes to the largest number among them, without waiting for a device."""
        boxes = pad_sequence([target.boxes.float() for target in targets], batch_first=True)
        labels = pad_sequence([target.labels for target in targets], batch_first=True)
        absent = pad_sequence([target.crowd for target in targets], batch_first=True, padding_value=True)
        # Crowds behind the single objects, which keep their order and so their index.
        absent, order = absent.sort(dim=1, stable=True)
        boxes = boxes.gather(1, order[..., None].expand(-1, -1, 4))
        return PaddedTargets(boxes, labels.gather(1, order), ~absent)


@dataclass(frozen=True)
class Candidates:
    """For every ground truth, the K priors that might become its positives.

    Attributes:
        index: [B, G, K] int64 prior index, distinct among the eligible ones of one ground truth.
        iou: [B, G, K] overlap with the ground truth.
        metric: [B, G, K] the value that ranked them.
        eligible: [B, G, K] bool, whether the candidate passed every test.
    """

    index: Tensor
    iou: Tensor
    metric: Tensor
    eligible: Tensor

    @staticmethod
    def none(batch: int, truths: int, topk: int, device: torch.device) -> Candidates:
        """[B, G, K] places to be filled in, none eligible."""
        shape = batch, truths, topk
        zeros = torch.zeros(shape, device=device)
        index = torch.zeros(shape, dtype=torch.long, device=device)
        return Candidates(index, zeros, zeros.clone(), torch.zeros(shape, dtype=torch.bool, device=device))

    def of_image(self, image: int, count: int) -> Candidates:
        """Those of an image's first `count` ground truths, [count, K] each, in the same memory."""
        figures = (self.index, self.iou, self.metric, self.eligible)
        return Candidates(*(values[image, :count] for values in figures))


@dataclass(frozen=True)
class Assignment:
    """Which ground truth each prior answers for.

    Attributes:
        gt_index: [B, N] int64, index of the ground truth among the image's single objects, -1 on negatives.
        labels: [B, N] int64 class of that ground truth, -1 on negatives.
        boxes: [B, N, 4] its box in input pixels, 0 on negatives.
        iou: [B, N] overlap with it, 0 on negatives.
        metric: [B, N] alignment metric t (TAL) or IoU (ATSS) with it, 0 on negatives.
        target_scores: [B, N] the normalised metric that the class score shall reach (TAL), 1 on positives (ATSS);
            0 on negatives.
        ignored: [B, N] bool, priors that are neither positive nor negative and learn nothing (PAA); None for none.
    """

    gt_index: Tensor
    labels: Tensor
    boxes: Tensor
    iou: Tensor
    metric: Tensor
    target_scores: Tensor
    ignored: Tensor | None = None

    @staticmethod
    def of_owners(owner: Tensor, truth: PaddedTargets, boxes: Tensor, overlap: Overlap = "iou") -> Assignment:
        """What the priors' ground truths mean for them, whoever chose them.

        Args:
            owner: [B, N] int64, index of each prior's ground truth, -1 on negatives.
            truth: the padded ground truth, G >= 1.
            boxes: [N, 4] or [B, N, 4] the priors' boxes in input pixels.
            overlap: what stands for the IoU.

        Returns:
            The assignment, `metric` being the overlap and `target_scores` 1 on positives.
        """
        positive, gt = owner >= 0, owner.clamp(min=0)
        gt_boxes = truth.boxes.gather(1, gt[..., None].expand(-1, -1, 4))
        iou = torch.where(positive, overlap_pairs(overlap, gt_boxes, boxes), 0)
        return Assignment(
            gt_index=owner,
            labels=torch.where(positive, truth.labels.gather(1, gt), -1),
            boxes=torch.where(positive[..., None], gt_boxes, 0),
            iou=iou,
            metric=iou,
            target_scores=positive.to(iou.dtype),
        )

    @property
    def positive(self) -> Tensor:
        """[B, N] bool."""
        return self.gt_index >= 0

    @torch.no_grad()
    def with_overlap_of(self, boxes: Tensor) -> Assignment:
        """The same with the IoU of predicted boxes [B, N, 4] and their ground truths as target scores."""
        return replace(self, target_scores=iou_pairs(boxes.float(), self.boxes) * self.positive)


def first_largest(values: Tensor, k: int, above: float = 0.0) -> tuple[Tensor, Tensor]:
    """The k largest along the last dimension of [.., .., n] and their places; on a CPU of equal ones the first.

    That is so of values beyond `above`, as others mean nothing. A GPU takes any of equal ones: it would have to wait to
    find out whether there are some.
    """
    if values.device.type != "cpu" or k == values.shape[2]:
        largest, place = values.topk(k, dim=2)
        return largest, place
    largest, place = values.topk(k + 1, dim=2)
    # More of them than fit reach the least: they are sorted.
    ambiguous = ((largest[..., k - 1] == largest[..., k]) & (largest[..., k] > above)).nonzero(as_tuple=True)
    largest, place = largest[..., :k], place[..., :k]
    if len(ambiguous[0]):
        ordered, where = values[ambiguous].sort(dim=1, descending=True, stable=True)
        largest[ambiguous], place[ambiguous] = ordered[:, :k], where[:, :k]
    return largest, place


def settle_conflicts(candidates: Candidates, priors: int) -> tuple[Tensor, Tensor]:
    """Gives a prior that several ground truths claim to the one of highest IoU, among equals to the first.

    Returns:
        gt_index: [B, N] int64, -1 where no ground truth claims the prior.
        won: [B, G, K] bool, whether the candidate is a positive of its ground truth. Memory grows with B * G * K.
    """
    batch, truths, _ = candidates.index.shape
    index = candidates.index.flatten(1)  # [B, G*K]
    claim = torch.where(candidates.eligible, candidates.iou, -1.0).flatten(1)
    best = claim.new_full((batch, priors), -1.0).scatter_reduce(1, index, claim, "amax")  # [B, N]
    claims_best = candidates.eligible.flatten(1) & (claim == best.gather(1, index))
    number = torch.arange(truths, device=index.device)[None, :, None].expand_as(candidates.index).flatten(1)
    nobody = torch.full_like(best, truths, dtype=torch.long)
    owner = nobody.scatter_reduce(1, index, torch.where(claims_best, number, truths), "amin")  # [B, N]
    won = claims_best & (owner.gather(1, index) == number)
    return torch.where(owner < truths, owner, -1), won.view_as(candidates.eligible)


def build_assignment(
    truth: PaddedTargets, gt_index: Tensor, won: Tensor, candidates: Candidates, candidate_scores: Tensor
) -> Assignment:
    """Spreads the winning candidates' figures over the priors.

    Args:
        truth: the padded ground truth, G >= 1.
        gt_index: [B, N]; won: [B, G, K] from `settle_conflicts`.
        candidates: the candidates that were settled.
        candidate_scores: [B, G, K] target score of each candidate if it won.
    """

    batch, priors = gt_index.shape
    figures = torch.stack([candidates.iou, candidates.metric, candidate_scores], dim=-1)  # [B, G, K, 3]
    boxes = truth.boxes[:, :, None].expand(-1, -1, won.shape[2], -1)
    # Of each prior at most one candidate won; the others go to a place behind the priors.
    place = torch.where(won, candidates.index, priors).flatten(1)  # [B, G*K]
    place = place + torch.arange(batch, device=place.device)[:, None] * (priors + 1)
    spread = figures.new_zeros(batch * (priors + 1), 7)
    spread[place.flatten()] = torch.cat([boxes, figures], dim=-1).view(-1, 7)
    spread = spread.view(batch, priors + 1, 7)[:, :priors]
    labels = truth.labels.gather(1, gt_index.clamp(min=0))
    return Assignment(
        gt_index=gt_index,
        labels=torch.where(gt_index >= 0, labels, -1),
        boxes=spread[..., :4].contiguous(),
        iou=spread[..., 4].contiguous(),
        metric=spread[..., 5].contiguous(),
        target_scores=spread[..., 6].contiguous(),
    )


def empty_assignment(batch: int, priors: int, device: torch.device) -> Assignment:
    """All negatives: what a batch without a single object gets."""
    zeros = torch.zeros(batch, priors, device=device)
    nothing = torch.full((batch, priors), -1, dtype=torch.long, device=device)
    return Assignment(nothing, nothing, torch.zeros(batch, priors, 4, device=device), zeros, zeros, zeros)
