"""Task-aligned one-stage object detection.

>>> from tood import Detector
>>> detector = Detector("runs/mine/best.safetensors")
>>> found = detector("photo.jpg")
>>> found.boxes, found.scores, found.names
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tood.data import load_dataset
    from tood.errors import ToodError
    from tood.evaluation import evaluate
    from tood.inference import Detector
    from tood.structures import DensePredictions, Detections, Priors, Targets
    from tood.training import RunConfig, run_config, train

__all__ = [
    "DensePredictions",
    "Detections",
    "Detector",
    "Priors",
    "RunConfig",
    "Targets",
    "ToodError",
    "__version__",
    "evaluate",
    "load_dataset",
    "run_config",
    "train",
]

# PyTorch takes seconds to import: what needs it is imported when it is first asked for.
_ROOMS = {
    "DensePredictions": "tood.structures",
    "Detections": "tood.structures",
    "Detector": "tood.inference",
    "Priors": "tood.structures",
    "RunConfig": "tood.training",
    "Targets": "tood.structures",
    "ToodError": "tood.errors",
    "evaluate": "tood.evaluation",
    "load_dataset": "tood.data",
    "run_config": "tood.training",
    "train": "tood.training",
}


def __getattr__(name: str) -> object:
    if name == "__version__":
        from tood.version import own_version

        return own_version()
    if name in _ROOMS:
        return getattr(import_module(_ROOMS[name]), name)
    raise AttributeError(f"module 'tood' has no attribute '{name}'")


def __dir__() -> list[str]:
    return sorted(__all__)


if TYPE_CHECKING:
    __version__: str
