"""Who answers for which ground truth: one module an assignment rule, all giving an `Assignment`."""

from tood.alignment.assigners.anchor_scoring import AnchorScoringAssigner
from tood.alignment.assigners.assignment import Assignment, PaddedTargets
from tood.alignment.assigners.atss import ATSSAssigner
from tood.alignment.assigners.max_iou import MaxIoUAssigner
from tood.alignment.assigners.mixture import MixtureFit
from tood.alignment.assigners.simota import SimOTAAssigner
from tood.alignment.assigners.task_aligned import TaskAlignedAssigner

__all__ = [
    "ATSSAssigner",
    "AnchorScoringAssigner",
    "Assignment",
    "MaxIoUAssigner",
    "MixtureFit",
    "PaddedTargets",
    "SimOTAAssigner",
    "TaskAlignedAssigner",
]
