"""Networks: shared parts, one folder a family, named models and their weight files."""

from tood.models.build import build_model, for_inference
from tood.models.common import AnyPostprocessConfig, DenseDetector, PostprocessConfig
from tood.models.families import FAMILIES, AnyDetector, AnyModelConfig
from tood.models.family import Family
from tood.models.weight_files import load_weights, recorded_figures, save_weights

__all__ = [
    "FAMILIES",
    "AnyDetector",
    "AnyModelConfig",
    "AnyPostprocessConfig",
    "DenseDetector",
    "Family",
    "PostprocessConfig",
    "build_model",
    "for_inference",
    "load_weights",
    "recorded_figures",
    "save_weights",
]
