"""What the paper is about: the alignment metric, who answers for which ground truth, and what is minimised."""

from tood.alignment.assigners import (
    AnchorScoringAssigner,
    Assignment,
    ATSSAssigner,
    MaxIoUAssigner,
    MixtureFit,
    SimOTAAssigner,
    TaskAlignedAssigner,
)
from tood.alignment.criteria import (
    ATSSCriterion,
    ATSSCriterionConfig,
    Criterion,
    CriterionConfig,
    Losses,
    Progress,
    SimOTACriterion,
    SimOTACriterionConfig,
    TaskAlignedCriterion,
    TaskAlignedCriterionConfig,
    VarifocalCriterion,
    VarifocalCriterionConfig,
)
from tood.alignment.losses import distribution_focal_loss, focal_loss, giou_loss, quality_focal_loss, varifocal_loss
from tood.alignment.metric import alignment_metric

__all__ = [
    "ATSSAssigner",
    "ATSSCriterion",
    "ATSSCriterionConfig",
    "AnchorScoringAssigner",
    "Assignment",
    "Criterion",
    "CriterionConfig",
    "Losses",
    "MaxIoUAssigner",
    "MixtureFit",
    "Progress",
    "SimOTAAssigner",
    "SimOTACriterion",
    "SimOTACriterionConfig",
    "TaskAlignedAssigner",
    "TaskAlignedCriterion",
    "TaskAlignedCriterionConfig",
    "VarifocalCriterion",
    "VarifocalCriterionConfig",
    "alignment_metric",
    "distribution_focal_loss",
    "focal_loss",
    "giou_loss",
    "quality_focal_loss",
    "varifocal_loss",
]
