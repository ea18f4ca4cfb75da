"""OpenVINO's files, an .xml and a .bin, run by OpenVINO."""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tood.engines.description import ExportedModel
from tood.engines.engine import Engine, Run
from tood.engines.extras import needed
from tood.errors import ToodError, one_line

# The name under which its metadata ("runtime information") keeps ours, each text by its name, and all of them as json.
METADATA, WHOLE = "tood", "description"


def open_openvino(path: Path, device: torch.device) -> Engine:
    """A file that `tood export --to openvino` wrote; for errors see `open_exported`."""
    openvino = needed("openvino", "openvino", f"to run {path}")
    if not path.with_suffix(".bin").is_file():
        raise ToodError(f"{path.with_suffix('.bin')} is missing, which holds the numbers of {path}: keep them together")
    try:
        model = openvino.Core().read_model(str(path))
        texts = json.loads(str(model.get_rt_info([METADATA, WHOLE]).value))
    except (RuntimeError, ValueError) as error:
        raise ToodError(f"{path} is no model that `tood export` wrote for OpenVINO: {one_line(error)}") from error
    description = ExportedModel.from_texts(texts, path)
    return Engine(description, "openvino", model_run(model, device, str(path)))


def model_run(model: Any, device: torch.device, name: str) -> Run:
    """A model of OpenVINO's, compiled for this machine, as a function of tensors.

    It computes in fp32 what the file does not say to be int8: left to itself, it takes bf16 on CPUs that have it, which
    boxes do not bear.

    Raises:
        ToodError: if OpenVINO cannot run it.
    """
    openvino = needed("openvino", "openvino", f"to run {name}")
    if device.type != "cpu":
        raise ToodError(f"OpenVINO is run on the CPU here, not on '{device}': take --device cpu")
    settings = {
        "INFERENCE_NUM_THREADS": torch.get_num_threads(),
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_PRECISION_HINT": "f32",
    }
    try:
        compiled = openvino.Core().compile_model(model, "CPU", settings)
    except RuntimeError as error:
        raise ToodError(f"{name} is no model that OpenVINO can run: {one_line(error)}") from error
    # Once compiled, an output has further names, of what was fused into it.
    names = [output.get_any_name() for output in model.outputs]
    of_thread = threading.local()

    def run(inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        # One request computes one thing at a time; servers have several threads.
        if not hasattr(of_thread, "request"):
            of_thread.request = compiled.create_infer_request()
        outputs = of_thread.request.infer({key: tensor.numpy() for key, tensor in inputs.items()})
        # Its memory is used again at the next call.
        return {key: torch.from_numpy(outputs[place].copy()) for place, key in enumerate(names)}

    return run
