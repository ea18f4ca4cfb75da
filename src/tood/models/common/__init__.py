"""Parts that several families share."""

from tood.models.common.detector import DenseDetector, ModelConfig
from tood.models.common.input import InputConfig, normalise, padded_sizes
from tood.models.common.postprocess_config import PostprocessConfig

__all__ = ["DenseDetector", "InputConfig", "ModelConfig", "PostprocessConfig", "normalise", "padded_sizes"]
