"""Parts that several families share."""

from tood.models.common.detector import DenseDetector, ModelConfig
from tood.models.common.postprocess_config import (
    AnyPostprocessConfig,
    PostprocessConfig,
    ScoreVotingConfig,
    TopKConfig,
    head_for,
)

__all__ = [
    "AnyPostprocessConfig",
    "DenseDetector",
    "ModelConfig",
    "PostprocessConfig",
    "ScoreVotingConfig",
    "TopKConfig",
    "head_for",
]
