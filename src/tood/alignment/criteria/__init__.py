"""What is minimised: one module a family of losses over an assignment."""

from tood.alignment.criteria.atss import ATSSCriterion, ATSSCriterionConfig
from tood.alignment.criteria.criterion import Criterion, CriterionConfig, Losses, Progress
from tood.alignment.criteria.simota import SimOTACriterion, SimOTACriterionConfig
from tood.alignment.criteria.task_aligned import TaskAlignedCriterion, TaskAlignedCriterionConfig
from tood.alignment.criteria.varifocal import VarifocalCriterion, VarifocalCriterionConfig

__all__ = [
    "ATSSCriterion",
    "ATSSCriterionConfig",
    "Criterion",
    "CriterionConfig",
    "Losses",
    "Progress",
    "SimOTACriterion",
    "SimOTACriterionConfig",
    "TaskAlignedCriterion",
    "TaskAlignedCriterionConfig",
    "VarifocalCriterion",
    "VarifocalCriterionConfig",
]
