"""Parts that several families share."""

from tood.models.common.detector import DenseDetector, ModelConfig
from tood.models.common.input import InputConfig, normalise, padded_sizes
from tood.models.common.postprocess_config import (
    AnyPostprocessConfig,
    PostprocessConfig,
    ScoreVotingConfig,
    TopKConfig,
)

__all__ = [
    "AnyPostprocessConfig",
    "DenseDetector",
    "InputConfig",
    "ModelConfig",
    "PostprocessConfig",
    "ScoreVotingConfig",
    "TopKConfig",
    "normalise",
    "padded_sizes",
]
