"""What the paper is about: the alignment metric, who answers for which ground truth, and what is minimised."""

from tood.alignment.assigners import Assignment, ATSSAssigner, TaskAlignedAssigner
from tood.alignment.criteria import (
    AnyCriterionConfig,
    ATSSCriterion,
    ATSSCriterionConfig,
    Criterion,
    Losses,
    Progress,
    TaskAlignedCriterion,
    TaskAlignedCriterionConfig,
    build_criterion,
)
from tood.alignment.losses import focal_loss, giou_loss, quality_focal_loss
from tood.alignment.metric import alignment_metric

__all__ = [
    "ATSSAssigner",
    "ATSSCriterion",
    "ATSSCriterionConfig",
    "AnyCriterionConfig",
    "Assignment",
    "Criterion",
    "Losses",
    "Progress",
    "TaskAlignedAssigner",
    "TaskAlignedCriterion",
    "TaskAlignedCriterionConfig",
    "alignment_metric",
    "build_criterion",
    "focal_loss",
    "giou_loss",
    "quality_focal_loss",
]
