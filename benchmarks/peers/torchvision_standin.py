"""Import before `ultralytics`: an empty torchvision, for no build of it loads beside a CPU-only PyTorch.

Only box NMS of it is ever called on our ways; Ultralytics' own takes its place.
"""

from __future__ import annotations

import importlib.metadata
import sys
import types

VERSION = "0.28.0"


class _Absent(types.ModuleType):
    """Gives an empty class for whatever is imported from it."""

    def __getattr__(self, name: str) -> type:
        if name.startswith("__"):
            raise AttributeError(name)
        return type(name, (), {})


def stand_in() -> None:
    """Puts the empty package into `sys.modules`."""
    package = types.ModuleType("torchvision")
    package.__version__ = VERSION  # type: ignore[attr-defined]
    sys.modules["torchvision"] = package
    for part in ("io", "models", "ops", "transforms", "transforms.functional"):
        module = _Absent(f"torchvision.{part}")
        sys.modules[module.__name__] = module
        if "." not in part:
            setattr(package, part, module)
    known = importlib.metadata.version
    importlib.metadata.version = lambda name: VERSION if name == "torchvision" else known(name)
    from ultralytics.utils.nms import TorchNMS

    operators = sys.modules["torchvision.ops"]
    operators.nms = lambda boxes, scores, threshold: TorchNMS.nms(boxes, scores, threshold)  # type: ignore[attr-defined]


stand_in()
