"""Task-aligned assignment (TOOD, section 3.2.1): positives are the priors whose score and box agree best."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from tood.alignment.assigners.assignment import (
    Assignment,
    Candidates,
    PaddedTargets,
    block_size,
    build_assignment,
    empty_assignment,
    first_largest,
    settle_conflicts,
)
from tood.alignment.assigners.contested import Rivals, settle_among
from tood.alignment.assigners.groups import best_in_groups
from tood.alignment.assigners.runs import best_in_runs
from tood.alignment.assigners.touching import Search
from tood.alignment.metric import alignment_metric
from tood.boxes import Overlap, inside_distance, overlap_matrix
from tood.errors import SettingError
from tood.structures import Targets

# Up to so many ground truths an image all pairs are measured at once.
FEW = 32
# From so many on they lie so densely that groups of them share the search for boxes.
CROWDED = 1000


@dataclass(frozen=True)
class TaskAlignedAssigner:
    """Assigns to each ground truth the `topk` priors of largest t = score^alpha * IoU^beta.

    Usable in any training loop::

        assigner = TaskAlignedAssigner(topk=13)
        assignment = assigner(scores, boxes, centres, targets)
        positives = assignment.positive            # [B, N]
        wanted = assignment.target_scores          # [B, N], what the assigned class's score shall become

    Attributes:
        topk: candidates for each ground truth, over all levels together.
        alpha, beta: exponents of score and IoU in t (equation 3).
        inside: whether priors outside a ground truth leave "before" the top-k is taken (YOLOv8, PP-YOLOE) or "after"
            it (TOOD).
        margin: a prior is inside where its centre is farther than this from every side, in input pixels.
        epsilon: added to the largest t of a ground truth when its own are normalised.
        rivals: which ground truths a prior that several have chosen may go to (see `Rivals`).
        overlap: what stands for the IoU everywhere, in t, among rivals and in the target scores.

    Raises:
        ToodError: if `beta` is not above 0.
    """

    topk: int = 13
    alpha: float = 1.0
    beta: float = 6.0
    inside: Literal["before", "after"] = "after"
    margin: float = 0.01
    epsilon: float = 1e-7
    rivals: Rivals = "chosen"
    overlap: Overlap = "iou"

    def __post_init__(self) -> None:
        # At 0 a box that overlaps nothing would be aligned, too.
        if not self.beta > 0:
            raise SettingError("beta", f"is {self.beta}: the exponent of the IoU is above 0")

    @torch.no_grad()
    def __call__(
        self,
        scores: Tensor,
        boxes: Tensor,
        centres: Tensor,
        targets: Sequence[Targets],
        valid: Tensor | None = None,
    ) -> Assignment:
        """Assigns a batch.

        Args:
            scores: [B, N, C] predicted probabilities, finite.
            boxes: [B, N, 4] predicted boxes, x1 y1 x2 y2 in input pixels, no NaN among them.
            centres: [N, 2] prior centres x, y in input pixels.
            targets: B ground truths in input pixels; crowds take no part.
            valid: [B, N] bool, False on priors that may not be assigned (padding); None for all valid.

        Returns:
            The assignment. Of priors with equal t the first are taken (on a GPU any). A prior that several ground
            truths claim goes to the one of highest IoU among `rivals`, of equals to the first. `target_scores` is
            t / (max t + epsilon) * max IoU, the maxima over the ground truth's positives. Extra memory: O(B * G * topk
            + B * N), plus blocks of 8 MiB (on a GPU 64).
        """
        truth = PaddedTargets.of(targets)
        batch, priors, _ = scores.shape
        if truth.boxes.shape[1] == 0:
            return empty_assignment(batch, priors, scores.device)
        scores, boxes = scores.float(), boxes.float()
        candidates = self._candidates(scores, boxes, centres, truth, valid)
        if self.rivals != "chosen":
            owner = settle_among(self.rivals, candidates, truth, boxes, centres, self.margin, self.overlap)
            return self._of_owners(owner, scores, boxes, truth)
        gt_index, won = settle_conflicts(candidates, priors)
        largest_metric = torch.where(won, candidates.metric, 0).amax(dim=2, keepdim=True)  # [B, G, 1]
        largest_iou = torch.where(won, candidates.iou, 0).amax(dim=2, keepdim=True)
        normalised = candidates.metric / (largest_metric + self.epsilon) * largest_iou
        return build_assignment(truth, gt_index, won, candidates, normalised)

    @torch.no_grad()
    def scored(self, assignment: Assignment, scores: Tensor, boxes: Tensor, targets: Sequence[Targets]) -> Assignment:
        """The positives of another assigner with the figures that alignment gives them.

        Args:
            assignment: whose positives are taken.
            scores, boxes, targets: as in a call.
        """
        truth = PaddedTargets.of(targets)
        if truth.boxes.shape[1] == 0:
            return assignment
        return self._of_owners(assignment.gt_index, scores.float(), boxes.float(), truth)

    def _of_owners(self, owner: Tensor, scores: Tensor, boxes: Tensor, truth: PaddedTargets) -> Assignment:
        """The assignment of priors [B, N] to ground truths, whoever chose them."""
        found = Assignment.of_owners(owner, truth, boxes, self.overlap)
        gt, iou = owner.clamp(min=0), found.iou
        score = scores.gather(2, found.labels.clamp(min=0)[..., None]).squeeze(2)
        metric = torch.where(found.positive, alignment_metric(score, iou, self.alpha, self.beta), 0)
        # [B, G] the largest of each ground truth, on each of its priors.
        largest_metric, largest_iou = (
            values.new_zeros(truth.labels.shape).scatter_reduce(1, gt, values, "amax").gather(1, gt)
            for values in (metric, iou)
        )
        return replace(found, metric=metric, target_scores=metric / (largest_metric + self.epsilon) * largest_iou)

    def _candidates(
        self, scores: Tensor, boxes: Tensor, centres: Tensor, truth: PaddedTargets, valid: Tensor | None
    ) -> Candidates:
        """The priors of largest t of each ground truth, of equal ones the first.

        Where there are many ground truths, a CPU looks only where boxes are; a GPU would have to wait for the number of
        them, and measures all pairs.
        """
        if truth.boxes.shape[1] <= FEW or scores.device.type != "cpu":
            found = self._among_all(scores, boxes, centres, truth, valid)
        else:
            found = self._among_overlapping(scores, boxes, centres, truth, valid)
        inside = inside_distance(centres[found.index], truth.boxes[:, :, None]) > self.margin  # [B, G, K]
        return replace(found, eligible=(found.metric > 0) & inside & truth.present[..., None])

    def _among_overlapping(
        self, scores: Tensor, boxes: Tensor, centres: Tensor, truth: PaddedTargets, valid: Tensor | None
    ) -> Candidates:
        batch, truths = truth.present.shape
        topk = min(self.topk, scores.shape[1])
        found = Candidates.none(batch, truths, topk, scores.device)
        ranked = centres if self.inside == "before" else None
        for image, count in enumerate(truth.present.sum(dim=1).tolist()):
            if count:
                search = Search(
                    scores[image],
                    boxes[image],
                    ranked,
                    truth.boxes[image, :count],
                    truth.labels[image, :count],
                    None if valid is None else valid[image],
                    topk,
                    self.alpha,
                    self.beta,
                    self.margin,
                    self.overlap,
                )
                best = best_in_runs if count < CROWDED else best_in_groups
                best(search, found.of_image(image, count))
        return found

    def _among_all(
        self, scores: Tensor, boxes: Tensor, centres: Tensor, truth: PaddedTargets, valid: Tensor | None
    ) -> Candidates:
        batch, priors, _ = scores.shape
        by_class = scores.transpose(1, 2)  # [B, C, N]
        image = torch.arange(batch, device=scores.device)[:, None]
        found = Candidates.none(batch, truth.boxes.shape[1], min(self.topk, priors), scores.device)
        block = block_size(batch, priors, scores.device)
        for start in range(0, truth.boxes.shape[1], block):
            part = slice(start, start + block)
            gt_boxes = truth.boxes[:, part]  # [B, g, 4]
            score = by_class[image, truth.labels[:, part]]  # [B, g, N]
            iou = overlap_matrix(self.overlap, gt_boxes, boxes)  # [B, g, N]
            metric = alignment_metric(score, iou, self.alpha, self.beta)
            if valid is not None:
                metric = metric.masked_fill(~valid[:, None], 0)
            if self.inside == "before":
                inside = inside_distance(centres, gt_boxes[:, :, None]) > self.margin  # [B, g, N]
                metric = metric.masked_fill(~inside, 0)
            found.metric[:, part], index = first_largest(metric, found.index.shape[2])  # [B, g, K]
            found.index[:, part], found.iou[:, part] = index, iou.gather(2, index)
        return found
