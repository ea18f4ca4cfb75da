"""Networks: shared parts, and one folder a family."""

from tood.models.build import build_model, for_inference
from tood.models.common import AnyPostprocessConfig, DenseDetector, PostprocessConfig
from tood.models.families import FAMILIES, AnyCriterionConfig, AnyDetector, AnyModelConfig
from tood.models.family import Family
from tood.models.precision import Precision, choose_precision, cpu_multiplies_bf16

__all__ = [
    "FAMILIES",
    "AnyCriterionConfig",
    "AnyDetector",
    "AnyModelConfig",
    "AnyPostprocessConfig",
    "DenseDetector",
    "Family",
    "PostprocessConfig",
    "Precision",
    "build_model",
    "choose_precision",
    "cpu_multiplies_bf16",
    "for_inference",
]
