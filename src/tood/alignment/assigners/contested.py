"""Who gets a prior that several ground truths chose, where also those are asked that did not choose it.

TOOD leaves it to the highest overlap among the ground truths that chose the prior (`settle_conflicts`). Its successors
take the highest overlap among more of them, so that a prior may become a positive of a ground truth that did not rank
it among its best, and whose figures nobody has computed yet: they are computed here, once a prior.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

import torch
from torch import Tensor

from tood.alignment.assigners.assignment import Candidates, PaddedTargets, block_size
from tood.boxes import Overlap, inside_distance, overlap_pairs

Rivals: TypeAlias = Literal["chosen", "containing", "all"]
"""The ground truths of which the one with the highest overlap gets a prior that several have chosen: those that chose
it (TOOD), those whose box contains it (YOLOv8 and its successors), or all of the image (PP-YOLOE, YOLOv6).
"""


def settle_among(
    rivals: Rivals,
    candidates: Candidates,
    truth: PaddedTargets,
    boxes: Tensor,
    centres: Tensor,
    margin: float,
    overlap: Overlap = "iou",
) -> Tensor:
    """[B, N] int64 the ground truth that each prior answers for, -1 for none.

    Args:
        rivals: "containing" or "all".
        candidates: of each ground truth.
        truth: the padded ground truths, G >= 1.
        boxes: [N, 4] or [B, N, 4], whose overlap with the ground truths decides, among equals for the first of these.
        centres: [N, 2] of the priors.
        margin: a box contains the priors that are farther than this from each of its sides.
        overlap: which.

    Returns:
        Memory grows with B * N, plus blocks of 8 MiB (on a GPU 64) for each temporary.
    """
    asked = _Question(rivals, overlap, truth, boxes.expand(len(truth.boxes), -1, -1), centres, margin)
    batch, truths, _ = candidates.index.shape
    priors = len(centres)
    index, eligible = candidates.index.flatten(1), candidates.eligible.flatten(1)  # [B, G*K]
    claims = torch.zeros(batch, priors, dtype=torch.int32, device=index.device)
    claims.scatter_add_(1, index, eligible.to(claims.dtype))
    number = torch.arange(truths, device=index.device)[None, :, None].expand_as(candidates.index).flatten(1)
    nobody = torch.full((batch, priors), truths, dtype=torch.long, device=index.device)
    owner = nobody.scatter_reduce(1, index, torch.where(eligible, number, truths), "amin")
    owner = torch.where(owner < truths, owner, -1)
    if index.device.type == "cpu":
        image, prior = (claims > 1).nonzero(as_tuple=True)
        owner[image, prior] = asked.best(image, prior)
        return owner
    # Choosing the contested ones would make the host wait for the device: all are asked.
    image = torch.arange(batch, device=index.device).repeat_interleave(priors, output_size=batch * priors)
    prior = torch.arange(priors, device=index.device).repeat(batch)
    best = asked.best(image, prior)
    return torch.where(claims > 1, best.view(batch, priors), owner)


@dataclass(frozen=True, eq=False)
class _Question:
    """Which ground truth overlaps most; attributes as the arguments of `settle_among`, boxes [B, N, 4]."""

    rivals: Rivals
    overlap: Overlap
    truth: PaddedTargets
    boxes: Tensor
    centres: Tensor
    margin: float

    def best(self, image: Tensor, prior: Tensor) -> Tensor:
        """[P] the rival of highest overlap for each of P (image, prior) pairs."""
        found = [image.new_zeros(0)]
        parts = torch.split(torch.stack([image, prior]), block_size(1, self.truth.boxes.shape[1], image.device), dim=1)
        for of, place in parts:
            gt_boxes, rival = self.truth.boxes[of], self.truth.present[of]  # [p, G, 4], [p, G]
            if self.rivals == "containing":
                rival = rival & (inside_distance(self.centres[place][:, None], gt_boxes) > self.margin)
            overlap = overlap_pairs(self.overlap, gt_boxes, self.boxes[of, place][:, None])  # [p, G]
            found.append(overlap.masked_fill(~rival, -1).argmax(dim=1))
        return torch.cat(found)
