"""Networks that no longer learn: the same predictions, sooner."""

from tood.models.inference.build import (
    InferenceDetector,
    Precision,
    choose_precision,
    cpu_multiplies_bf16,
    for_inference,
)

__all__ = ["InferenceDetector", "Precision", "choose_precision", "cpu_multiplies_bf16", "for_inference"]
