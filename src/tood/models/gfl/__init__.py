"""GFL: generalised focal loss on a parallel head whose box sides are distributions (Li et al., NeurIPS 2020)."""

from tood.models.gfl.config import GFL, GFLConfig
from tood.models.gfl.criterion import GFLCriterion, GFLCriterionConfig
from tood.models.gfl.head import GFLHead, GFLHeadConfig

__all__ = ["GFL", "GFLConfig", "GFLCriterion", "GFLCriterionConfig", "GFLHead", "GFLHeadConfig"]
