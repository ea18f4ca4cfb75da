"""Exported models: what their files say of themselves, and the engines that run them."""

from tood.engines.description import ExportedModel, PriorGrid
from tood.engines.engine import ENGINE_NAMES, Engine, EngineKind, is_exported, open_exported, require_weights
from tood.engines.inputs import FixedInput, WholeInput

__all__ = [
    "ENGINE_NAMES",
    "Engine",
    "EngineKind",
    "ExportedModel",
    "FixedInput",
    "PriorGrid",
    "WholeInput",
    "is_exported",
    "open_exported",
    "require_weights",
]
