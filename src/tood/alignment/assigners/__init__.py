"""Who answers for which ground truth: one module an assignment rule, all giving an `Assignment`."""

from tood.alignment.assigners.assignment import Assignment, PaddedTargets
from tood.alignment.assigners.atss import ATSSAssigner
from tood.alignment.assigners.simota import SimOTAAssigner
from tood.alignment.assigners.task_aligned import TaskAlignedAssigner

__all__ = ["ATSSAssigner", "Assignment", "PaddedTargets", "SimOTAAssigner", "TaskAlignedAssigner"]
