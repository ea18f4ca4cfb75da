"""What is minimised: one module a family of losses over an assignment."""

from tood.alignment.criteria.atss import ATSSCriterion, ATSSCriterionConfig
from tood.alignment.criteria.build import AnyCriterionConfig, build_criterion
from tood.alignment.criteria.criterion import Criterion, Losses, Progress
from tood.alignment.criteria.task_aligned import TaskAlignedCriterion, TaskAlignedCriterionConfig

__all__ = [
    "ATSSCriterion",
    "ATSSCriterionConfig",
    "AnyCriterionConfig",
    "Criterion",
    "Losses",
    "Progress",
    "TaskAlignedCriterion",
    "TaskAlignedCriterionConfig",
    "build_criterion",
]
