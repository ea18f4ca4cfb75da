"""What YOLOX minimises (Ge et al. 2021): classes and boxes of SimOTA's positives, and the objectness of all places."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from tood.alignment.assigners import Assignment, SimOTAAssigner
from tood.alignment.criteria.criterion import (
    BatchCriterion,
    CriterionInput,
    Losses,
    box_losses,
    check_share,
    class_losses,
    class_targets,
)
from tood.alignment.losses import binary_cross_entropy, hull_loss, squared_iou_loss
from tood.structures import DensePredictions, Priors


@dataclass(frozen=True)
class SimOTACriterionConfig:
    """Assigner and loss weights; the defaults are YOLOX's.

    Attributes:
        assigner: gives the positives.
        box_loss: 1 - IoU^2 ("squared_iou", YOLOX), or 1 - IoU plus the share of the hull that both boxes do not have in
            common ("hull", which YOLOX-PAI calls GIoU).
        classification_weight, box_weight, objectness_weight, l1_weight: factors of the four losses.
        l1_share: the L1 loss of the boxes' coordinates joins for this last share of the run (published: 15 of 300
            epochs).
        trains_quality: whether a head's judgement of its boxes (`DensePredictions.quality`) learns anything: it is the
            objectness.
    """

    trains_quality: ClassVar[bool] = True

    kind: Literal["simota"] = "simota"
    assigner: SimOTAAssigner = field(default_factory=SimOTAAssigner)
    box_loss: Literal["squared_iou", "hull"] = "squared_iou"
    classification_weight: float = 1.0
    box_weight: float = 5.0
    objectness_weight: float = 1.0
    l1_weight: float = 1.0
    l1_share: float = 0.05

    def __post_init__(self) -> None:
        check_share("l1_share", self.l1_share)

    def build(self) -> SimOTACriterion:
        """The criterion."""
        return SimOTACriterion(self)


class SimOTACriterion(BatchCriterion):
    """Assigns by cost; the classes learn the IoU of their boxes, the objectness whether there is an object.

    Of a head without `quality` the classes of all places learn, as nothing else would tell where there is no object.
    """

    terms = ("cls", "box", "objectness", "l1")

    def __init__(self, config: SimOTACriterionConfig | None = None) -> None:
        self.config = config or SimOTACriterionConfig()

    def losses(self, batch: CriterionInput) -> Losses:
        """The progress decides whether the L1 loss has joined; `quality` is the objectness.

        Returns:
            Each loss divided by the number of positives.
        """
        config, predictions, valid = self.config, batch.predictions, batch.valid
        priors = predictions.priors
        scores, boxes = batch.scores, batch.boxes
        assignment = config.assigner(
            _assigning_scores(predictions), boxes.detach(), cell_middles(priors), priors.strides, batch.targets, valid
        )
        positive = assignment.positive
        own = {"positives": positive.sum()}
        average = batch.divisors(own)["positives"]
        learning = valid if predictions.quality is None else positive
        per_prior = {
            "cls": _class_losses(scores, predictions.logits, assignment, learning)
            * (config.classification_weight / average),
            "box": box_losses(
                boxes,
                assignment,
                positive,
                squared_iou_loss if config.box_loss == "squared_iou" else hull_loss,
            )
            * (config.box_weight / average),
        }
        if predictions.quality is not None:
            entropy = F.binary_cross_entropy_with_logits(
                predictions.quality.float(), positive.float(), reduction="none"
            )
            counted = entropy if valid is None else torch.where(valid, entropy, 0)
            per_prior["objectness"] = counted * (config.objectness_weight / average)
        if batch.progress is None or batch.progress.share >= 1 - config.l1_share - 1e-9:
            per_prior["l1"] = l1_losses(boxes, priors, assignment) * (config.l1_weight / average)
        return Losses(per_prior, assignment, own)


def cell_middles(priors: Priors) -> Tensor:
    """[N, 2] the middles of the priors' cells in input pixels, be the priors there or on the cells' corners."""
    strides = priors.strides[:, None]
    return (torch.div(priors.centres, strides, rounding_mode="floor") + 0.5) * strides


def l1_losses(boxes: Tensor, priors: Priors, assignment: Assignment) -> Tensor:
    """[B, N] distances of the positives' boxes from their ground truths as YOLOX's head predicts them, 0 elsewhere.

    The distance of the centre to the prior in strides, and the logarithm of the size in strides, added up.
    """
    positive, strides = assignment.positive[..., None], priors.strides[:, None]
    # Negatives become one constant pair of equal boxes, as in `box_losses`.
    unit = torch.cat([torch.zeros_like(boxes[..., :2]), torch.ones_like(boxes[..., 2:])], dim=-1)
    given, wanted = (
        _cell_coordinates(torch.where(positive, value, unit), priors.centres, strides)
        for value in (boxes, assignment.boxes)
    )
    return (given - wanted).abs().sum(dim=-1)


def _cell_coordinates(boxes: Tensor, points: Tensor, strides: Tensor) -> Tensor:
    """[B, N, 4] of boxes [B, N, 4]; the least size is far below what a box of a pixel has."""
    middle, size = (boxes[..., :2] + boxes[..., 2:]) / 2, boxes[..., 2:] - boxes[..., :2]
    return torch.cat([(middle - points) / strides, (size / strides).clamp(min=1e-8).log()], dim=-1)


def _assigning_scores(predictions: DensePredictions) -> Tensor:
    """[B, N, C] what the assigner takes for probabilities: the root of class score times objectness."""
    scores = predictions.probabilities().detach().float()
    if predictions.quality is None:
        return scores
    return (scores * predictions.quality.detach().float().sigmoid()[..., None]).sqrt()


def _class_losses(scores: Tensor, logits: bool, assignment: Assignment, learning: Tensor | None) -> Tensor:
    """[B, N] the cross entropy of the class scores [B, N, C] with the IoU of the assigned class, where they learn."""
    if learning is not None:
        scores = torch.where(learning[..., None], scores, 0.0)  # what others hold sends no gradient back
    entropy = binary_cross_entropy(scores, class_targets(assignment, scores.shape[2]), logits=logits)
    return class_losses(entropy, learning, scores.new_ones(()))
