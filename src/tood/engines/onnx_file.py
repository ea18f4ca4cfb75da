"""ONNX files, run by ONNX Runtime."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tood.engines.description import ExportedModel
from tood.engines.engine import Engine, Run
from tood.engines.extras import needed
from tood.errors import ToodError, one_line

_PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}


def open_onnx(path: Path, device: torch.device) -> Engine:
    """A file that `tood export --to onnx` wrote; for errors see `open_exported`."""
    session = onnx_session(path, device)
    description = ExportedModel.from_texts(session.get_modelmeta().custom_metadata_map, path)
    return Engine(description, "onnxruntime", session_run(session))


def onnx_session(model: Path | bytes, device: torch.device) -> Any:
    """ONNX Runtime's session of a file, or of its content, with as many threads as PyTorch has.

    Raises:
        ToodError: if it is no ONNX model that this ONNX Runtime can run there, or ONNX Runtime is not installed.
    """
    name = "the model" if isinstance(model, bytes) else str(model)
    runtime = needed("onnxruntime", "export", f"to run {name}")
    provider = _PROVIDERS.get(device.type)
    if provider not in runtime.get_available_providers():
        raise ToodError(f"this ONNX Runtime does not compute on '{device}': take --device cpu, or onnxruntime-gpu")
    options = runtime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3  # of a model's oddities a person can do nothing about
    place = (provider, {} if device.index is None else {"device_id": device.index})
    try:
        session = runtime.InferenceSession(
            model if isinstance(model, bytes) else str(model), options, providers=[place]
        )
    except Exception as error:  # it has many kinds, without a base of their own
        raise ToodError(f"{name} is no model that ONNX Runtime can run: {one_line(error)}") from error
    # It takes the CPU, silently, where libraries of the device's cannot be loaded.
    if provider not in session.get_providers():
        raise ToodError(
            f"ONNX Runtime cannot load what it needs to compute on '{device}': take --device cpu, or see doctor"
        )
    return session


def session_run(session: Any) -> Run:
    """A session as a function of tensors."""
    names = [output.name for output in session.get_outputs()]

    def run(inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        outputs = session.run(names, {name: tensor.numpy() for name, tensor in inputs.items()})
        return {name: torch.from_numpy(output) for name, output in zip(names, outputs, strict=True)}

    return run
