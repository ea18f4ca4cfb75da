"""An exported model that is ready to run, whichever engine runs it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

import torch
from torch import Tensor

from tood.engines.description import ExportedModel
from tood.errors import ToodError
from tood.structures import DensePredictions

EngineKind: TypeAlias = Literal["onnxruntime", "openvino", "torch"]
"""What runs a file."""

ENGINE_NAMES: dict[EngineKind, str] = {"onnxruntime": "ONNX Runtime", "openvino": "OpenVINO", "torch": "PyTorch"}
"""As people write them."""

# By the ending of a file's name.
SUFFIXES: dict[str, EngineKind] = {".onnx": "onnxruntime", ".xml": "openvino", ".pt2": "torch"}

Run: TypeAlias = Callable[[Mapping[str, Tensor]], dict[str, Tensor]]
"""Inputs by name -> outputs by name, all in the CPU's memory."""


@dataclass(frozen=True, eq=False)
class Engine:
    """An exported model in memory.

    Attributes:
        description: what its file says of itself.
        kind: the engine.
        run: runs its graph.
    """

    description: ExportedModel
    kind: EngineKind
    run: Run

    @property
    def classes(self) -> int:
        """Number of classes."""
        return self.description.model.classes

    def predictions(self, images: Tensor, windows: Tensor) -> DensePredictions:
        """What is on a batch of images, however many the file takes at once.

        Args:
            images: [B, 3, H, W] float32, normalised; or [B, H, W, 3] uint8 RGB where the file takes whole pictures.
            windows: [B, 4] float32, x1 y1 x2 y2 of each picture within its image, in pixels.
        """
        description = self.description
        inputs = {"images": images.contiguous()}
        if description.wants_windows:
            inputs["windows"] = windows
        height, width = images.shape[1:3] if description.raw else images.shape[2:]
        if description.raw:
            geometry = description.network_input.geometry(height, width)
            height, width = description.network_input.padded(*geometry.canvas)
        return description.predictions(self._run(inputs), height, width)

    def _run(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """In batches of the size that the file is fixed to, the last one filled with blanks."""
        size = self.description.batch
        count = len(inputs["images"])
        if size is None or count == size:
            return self.run(inputs)
        parts = [
            self.run({name: _filled(tensor[start : start + size], size) for name, tensor in inputs.items()})
            for start in range(0, count, size)
        ]
        return {name: torch.cat([part[name] for part in parts])[:count] for name in parts[0]}


def _filled(tensor: Tensor, size: int) -> Tensor:
    """[b, ...] -> [size, ...], zeros behind what there is."""
    return torch.cat([tensor, tensor.new_zeros(size - len(tensor), *tensor.shape[1:])])


def is_exported(path: str | Path) -> bool:
    """Whether a file of that name is an exported model."""
    return Path(path).suffix.lower() in SUFFIXES


def require_weights(name_or_file: str | Path) -> None:
    """Refuses an exported model where weights are wanted.

    Raises:
        ToodError: if it is one.
    """
    if is_exported(name_or_file):
        raise ToodError(f"{name_or_file} is exported already: name the weights that it was made of")


def open_exported(path: str | Path, device: torch.device | None = None) -> Engine:
    """An exported model, ready to run.

    Args:
        path: the file: .onnx, .xml with its .bin beside it, or .pt2.
        device: where it is to compute; None is the CPU.

    Raises:
        ToodError: if the file cannot be read, was not written by `tood export`, or its engine is not installed or
            cannot compute there.
    """
    path, place = Path(path), device or torch.device("cpu")
    if not path.is_file():
        raise ToodError(f"there is no exported model {path}: check the path")
    kind = SUFFIXES[path.suffix.lower()]
    if kind == "onnxruntime":
        from tood.engines.onnx_file import open_onnx

        return open_onnx(path, place)
    if kind == "openvino":
        from tood.engines.openvino_file import open_openvino

        return open_openvino(path, place)
    from tood.engines.program_file import open_program

    return open_program(path, place)
