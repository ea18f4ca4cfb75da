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
from tood.errors import ToodError, one_line

METADATA, NAMES = "tood.json", "outputs"


def open_program(path: Path, device: torch.device) -> Engine:
    """A file that `tood export --to torch` wrote; for errors see `open_exported`."""
    extra = {METADATA: ""}
    try:
        program = torch.export.load(path, extra_files=extra)
        texts = json.loads(extra[METADATA])
        names = texts.pop(NAMES).split(",")
    except Exception as error:  # of zip files, of pickles, of graphs: it has many kinds
        raise ToodError(f"{path} is no program that `tood export` wrote: {one_line(error)}") from error
    return Engine(ExportedModel.from_texts(texts, path), "torch", _run(on_device(program, device), device, names))


def on_device(program: ExportedProgram, device: torch.device) -> torch.nn.Module:
    """A program as a function there: its weights, and what it makes of its own, which was on the CPU when written."""
    if device.type != "cpu":
        from torch.export.passes import move_to_device_pass  # which the oldest PyTorch of ours lacks

        program = move_to_device_pass(program, device)
    return program.module()


def _run(module: torch.nn.Module, device: torch.device, names: list[str]) -> Run:
    def run(inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        with torch.inference_mode():
            outputs = module(*(tensor.to(device) for tensor in inputs.values()))
        return {name: output.cpu() for name, output in zip(names, outputs, strict=True)}

    return run
