"""Networks: shared parts, and one folder a family."""

from tood.models.build import build_model, for_inference
from tood.models.common import AnyPostprocessConfig, DenseDetector, PostprocessConfig
from tood.models.families import FAMILIES, AnyCriterionConfig, AnyDetector, AnyModelConfig
from tood.models.family import Family

__all__ = [
    "FAMILIES",
    "AnyCriterionConfig",
    "AnyDetector",
    "AnyModelConfig",
    "AnyPostprocessConfig",
    "DenseDetector",
    "Family",
    "PostprocessConfig",
    "build_model",
    "for_inference",
]
