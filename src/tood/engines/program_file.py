"""PyTorch's own exported programs, .pt2."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor
from torch.export import ExportedProgram

from tood.engines.description import ExportedModel
from tood.engines.engine import Engine, Run
from tood.engines.quiet import quiet
from tood.errors import ToodError, one_line

METADATA = "tood.json"


def open_program(path: Path, device: torch.device) -> Engine:
    """A file that `tood export --to torch` wrote; for errors see `open_exported`."""
    extra = {METADATA: ""}
    try:
        with quiet("torch.export"):
            program = torch.export.load(path, extra_files=extra)
    except Exception as error:  # of zip files, of pickles, of graphs: it has many kinds
        raise ToodError(
            f"{path} cannot be read as a program of PyTorch's ({one_line(error)}): copy it again, or export the model "
            "again from its weights"
        ) from error
    try:
        texts = json.loads(extra[METADATA])
    except ValueError:  # another program
        texts = {}
    description = ExportedModel.from_texts(texts, path)
    return Engine(description, "torch", _run(on_device(program, device), device, description.outputs))


def on_device(program: ExportedProgram, device: torch.device) -> torch.nn.Module:
    """A program as a function there: its weights, and what it makes of its own, which was on the CPU when written."""
    if device.type != "cpu":
        from torch.export.passes import move_to_device_pass  # which the oldest PyTorch of ours lacks

        program = move_to_device_pass(program, device)
    return program.module()


def _run(module: torch.nn.Module, device: torch.device, names: tuple[str, ...]) -> Run:
    def run(inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        with torch.inference_mode():
            outputs = module(*(tensor.to(device) for tensor in inputs.values()))
        return {name: output.cpu() for name, output in zip(names, outputs, strict=True)}

    return run
