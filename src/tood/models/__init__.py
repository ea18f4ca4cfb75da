"""Networks: shared parts, one folder a family, named models and their weight files."""

from tood.models.build import AnyDetector, AnyModelConfig, NamedModel, build_model, named_model, named_models
from tood.models.common import AnyPostprocessConfig, DenseDetector, PostprocessConfig
from tood.models.inference import for_inference
from tood.models.weight_files import load_weights, recorded_figures, save_weights

__all__ = [
    "AnyDetector",
    "AnyModelConfig",
    "AnyPostprocessConfig",
    "DenseDetector",
    "NamedModel",
    "PostprocessConfig",
    "build_model",
    "for_inference",
    "load_weights",
    "named_model",
    "named_models",
    "recorded_figures",
    "save_weights",
]
