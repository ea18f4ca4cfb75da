"""PAA: probabilistic anchor assignment with IoU prediction on a parallel head (Kim and Lee, ECCV 2020)."""

from tood.models.paa.config import PAA, PAAConfig
from tood.models.paa.criterion import PAACriterion, PAACriterionConfig
from tood.models.paa.head import PAAHead, PAAHeadConfig

__all__ = ["PAA", "PAAConfig", "PAACriterion", "PAACriterionConfig", "PAAHead", "PAAHeadConfig"]
