"""Weights alone, as safetensors that know their architecture and their classes."""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from tood.configuration import from_dict, to_dict
from tood.errors import ToodError
from tood.models.build import build_model
from tood.models.families import AnyDetector, AnyModelConfig
from tood.whole_file import whole_file

# The metadata's keys.
FORMAT, CONFIG, CLASS_NAMES, SOURCE, FIGURES = "format", "config", "class_names", "source", "figures"
OURS = "tood"
# Under this key other containers (of torch.save in `meta`) keep what is metadata here.
OUR_META = "tood"
# BatchNorms count their batches only since PyTorch 0.4.1; the bins of PP-YOLOE, always the same, stand in its files
# since they are counted among its parameters.
COUNTERS = (".num_batches_tracked", "head.projection")
_NAMED_AT_MOST = 3


def save_weights(
    path: Path | str,
    model: AnyDetector,
    class_names: Sequence[str],
    source: str = "",
    figures: Mapping[str, float] | None = None,
) -> None:
    """Writes the model's tensors with its configuration and class names; the file appears whole or not at all.

    Args:
        path: of the file.
        model: whose weights.
        class_names: name of every class, indexed by label.
        source: where the weights came from, if not from training here.
        figures: what was measured of them, by name, for `recorded_figures`.
    """
    metadata = describe(model, class_names) | ({SOURCE: source} if source else {})
    metadata |= {FIGURES: json.dumps(dict(figures))} if figures else {}
    # Contiguous copies: channels-last weights are stored in the usual order.
    state = {name: tensor.contiguous() for name, tensor in model.state_dict().items()}
    with whole_file(path, durable=True) as temporary:
        try:
            save_file(state, temporary, metadata)
        except SafetensorError as error:
            raise ToodError(f"{path} cannot be written: {error}") from error
        # safetensors makes files that only their owner reads; like any other file these follow the umask.
        mask = os.umask(0)
        os.umask(mask)
        temporary.chmod(0o666 & ~mask)


def recorded_figures(path: Path) -> dict[str, float]:
    """The figures that `save_weights` was given for this file; none where it has none, or cannot be read."""
    try:
        with safe_open(path, framework="pt") as file:
            found = json.loads((file.metadata() or {}).get(FIGURES, "{}"))
        return {str(name): float(value) for name, value in found.items()}
    except (SafetensorError, OSError, ValueError, TypeError, AttributeError):
        return {}


def load_weights(path: Path | str) -> tuple[AnyDetector, tuple[str, ...]]:
    """The model that `save_weights` wrote, in evaluation mode, and its class names.

    Raises:
        ToodError: if the file is missing, no safetensors file, not one of this package's, or does not fit its own
            configuration.
    """
    path = Path(path)
    if not path.is_file():
        raise ToodError(f"there is no weights file {path}: check the path, or name a model of `tood models`")
    state, metadata = read_safetensors(path)
    if metadata.get(FORMAT) != OURS:
        raise ToodError(f"{path} has no tood metadata: it was not written by `tood train`")
    config, class_names = described(metadata, path)
    if config is None or class_names is None:
        raise ToodError(f"{path} has broken metadata: it was not written by `tood train`")
    model = build_model(config)
    load_tensors(model, state, f"{path} does not fit its own configuration")
    return model.eval(), class_names


def describe(model: AnyDetector, class_names: Sequence[str]) -> dict[str, str]:
    """The metadata by which a file knows its architecture and its classes."""
    return {
        FORMAT: OURS,
        CONFIG: json.dumps(to_dict(model.config)),
        CLASS_NAMES: json.dumps(list(class_names)),
    }


def described(metadata: Mapping[str, str], path: Path) -> tuple[AnyModelConfig | None, tuple[str, ...] | None]:
    """Architecture and class names in a file's metadata, None where it tells nothing of them.

    Raises:
        ToodError: if what it tells cannot be understood.
    """
    try:
        raw_config = json.loads(metadata[CONFIG]) if CONFIG in metadata else None
        raw_names = json.loads(metadata[CLASS_NAMES]) if CLASS_NAMES in metadata else None
    except (ValueError, RecursionError) as error:
        raise ToodError(f"{path} has broken metadata ({error}): it was not written by `tood train`") from error
    kind: Any = AnyModelConfig  # a union, which is no type to mypy
    config = None if raw_config is None else from_dict(kind, raw_config, where=str(path))
    return config, tuple(str(name) for name in raw_names) if isinstance(raw_names, list) else None


def read_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors and metadata of any safetensors file.

    Raises:
        ToodError: if it is none, or not whole.
    """
    try:
        with safe_open(path, framework="pt") as file:
            metadata = dict(file.metadata() or {})
            return {name: file.get_tensor(name) for name in file.keys()}, metadata  # noqa: SIM118 - not a dict
    except (SafetensorError, OSError) as error:
        raise ToodError(f"{path} is not a readable safetensors file ({error}): is it complete?") from error


def load_tensors(
    module: nn.Module, tensors: Mapping[str, Tensor], complaint: str, may_lack: Collection[str] = COUNTERS
) -> None:
    """Copies tensors into a module that must have exactly these.

    Args:
        module: takes them.
        tensors: by their name in the module.
        complaint: beginning of the error's sentence: whose tensors do not fit what.
        may_lack: endings of names that may be missing; such a tensor stays as it is.

    Raises:
        ToodError: that lists what is missing, unexpected or of another shape; the module is then as it was.
    """
    expected = {name: list(tensor.shape) for name, tensor in module.state_dict().items()}
    given = {name: list(tensor.shape) for name, tensor in tensors.items()}
    missing = [name for name in expected if name not in given and not name.endswith(tuple(may_lack))]
    unexpected = [name for name in given if name not in expected]
    reshaped = [
        f"{name} {given[name]} instead of {expected[name]}"
        for name in expected
        if name in given and expected[name] != given[name]
    ]
    if missing or unexpected or reshaped:
        parts = ((missing, "missing"), (unexpected, "unexpected"), (reshaped, "of another shape"))
        raise ToodError(f"{complaint}: {'; '.join(_listed(names, what) for names, what in parts if names)}")
    module.load_state_dict(dict(tensors), strict=False)


def _listed(names: Sequence[str], what: str) -> str:
    shown = ", ".join(names[:_NAMED_AT_MOST]) + (", ..." if len(names) > _NAMED_AT_MOST else "")
    return f"{len(names)} {'tensor' if len(names) == 1 else 'tensors'} {what} ({shown})"
