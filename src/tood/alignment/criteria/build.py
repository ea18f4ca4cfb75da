"""From a configuration to a criterion."""

from __future__ import annotations

from tood.alignment.criteria.atss import ATSSCriterion, ATSSCriterionConfig
from tood.alignment.criteria.criterion import Criterion
from tood.alignment.criteria.task_aligned import TaskAlignedCriterion, TaskAlignedCriterionConfig

# Configurations of all criteria; a new one joins the union here.
AnyCriterionConfig = TaskAlignedCriterionConfig | ATSSCriterionConfig


def build_criterion(config: AnyCriterionConfig) -> Criterion:
    """The criterion of a configuration."""
    if isinstance(config, ATSSCriterionConfig):
        return ATSSCriterion(config)
    return TaskAlignedCriterion(config)
