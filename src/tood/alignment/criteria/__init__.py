"""What is minimised: one module a family of losses over an assignment."""

from tood.alignment.criteria.task_aligned import Losses, TaskAlignedCriterion, TaskAlignedCriterionConfig

__all__ = ["Losses", "TaskAlignedCriterion", "TaskAlignedCriterionConfig"]
