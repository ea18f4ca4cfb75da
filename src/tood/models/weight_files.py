"""Weights alone, as safetensors that know their architecture and their classes."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from tood.configuration import from_dict, to_dict
from tood.errors import ToodError
from tood.models.build import AnyDetector, AnyModelConfig, build_model
from tood.whole_file import whole_file


def save_weights(path: Path | str, model: AnyDetector, class_names: Sequence[str]) -> None:
    """Writes the model's tensors with its configuration and class names; the file appears whole or not at all."""
    metadata = {
        "format": "tood",
        "config": json.dumps(to_dict(model.config)),
        "class_names": json.dumps(list(class_names)),
    }
    # Contiguous copies: channels-last weights are stored in the usual order.
    state = {name: tensor.contiguous() for name, tensor in model.state_dict().items()}
    with whole_file(path) as temporary:
        try:
            save_file(state, temporary, metadata)
        except SafetensorError as error:
            raise ToodError(f"{path} cannot be written: {error}") from error
        # safetensors makes files that only their owner reads; like any other file these follow the umask.
        mask = os.umask(0)
        os.umask(mask)
        temporary.chmod(0o666 & ~mask)


def load_weights(path: Path | str) -> tuple[AnyDetector, tuple[str, ...]]:
    """The model that `save_weights` wrote, in evaluation mode, and its class names.

    Raises:
        ToodError: if the file is missing, no safetensors file, not one of this package's, or does not fit its own
            configuration.
    """
    path = Path(path)
    if not path.is_file():
        raise ToodError(f"there is no weights file {path}: check the path, or name a model of `tood models`")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
    except (SafetensorError, OSError) as error:
        raise ToodError(f"{path} is not a readable safetensors file ({error}): is it complete?") from error
    if metadata.get("format") != "tood":
        raise ToodError(f"{path} has no tood metadata: it was not written by `tood train`")
    try:
        raw_config, class_names = json.loads(metadata["config"]), json.loads(metadata["class_names"])
    except (KeyError, ValueError) as error:
        raise ToodError(f"{path} has broken metadata ({error}): it was not written by `tood train`") from error
    model = build_model(from_dict(AnyModelConfig, raw_config, where=str(path)))
    _load(model, state, path)
    return model.eval(), tuple(str(name) for name in class_names)


def _load(model: AnyDetector, state: dict[str, torch.Tensor], path: Path) -> None:
    expected = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    given = {name: tuple(tensor.shape) for name, tensor in state.items()}
    missing = [name for name in expected if name not in given]
    unexpected = [name for name in given if name not in expected]
    reshaped = [name for name in expected if name in given and expected[name] != given[name]]
    if missing or unexpected or reshaped:
        raise ToodError(
            f"{path} does not fit its own configuration: {len(missing)} tensors missing, {len(unexpected)} unexpected, "
            f"{len(reshaped)} of another shape, first {(missing + unexpected + reshaped)[0]}"
        )
    model.load_state_dict(state)
