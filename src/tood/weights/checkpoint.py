"""Files of weights of any origin: their tensors and what they say of themselves. Nothing in a file is ever executed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from tood.errors import ToodError
from tood.weights.inert_pickle import DamagedError, HostileError, Inert, StoredTensor
from tood.weights.safetensors_file import OUR_META, described, read_safetensors
from tood.weights.stored_arrays import StoredArray
from tood.weights.torch_file import TorchFile, read_torch_file

# Where a file that holds more than a state dict keeps it, the likeliest first.
_STATE_DICTS = ("state_dict", "model", "ema")
# What some files hold beside the network: the framework's own normalisation, and shadows of an average.
_NOT_OF_THE_NETWORK = ("data_preprocessor.", "ema_")
FRAMEWORK_CONFIG = "framework_config"


@dataclass(frozen=True)
class Checkpoint:
    """What a file of weights holds.

    Attributes:
        tensors: by the file's own names, but without `module.` in front. They may lie in the mapped file: copy them
            (as loading into a model does) before the file is written anew.
        class_names: name of every class, indexed by label, None if the file has none.
        metadata: what else it says: `config` (our configuration as JSON), `source`, `framework_config` (the training
            framework's configuration as Python source), and whatever a safetensors file's metadata holds.
        path: of the file.
    """

    tensors: dict[str, Tensor]
    class_names: tuple[str, ...] | None
    metadata: Mapping[str, str] = field(default_factory=dict)
    path: Path = Path()


def read_weights_file(path: Path | str) -> Checkpoint:
    """Tensors, class names and metadata of a file of torch.save (of any age), of paddle.save or of safetensors.

    Objects of a training framework in it become inert; a state dict is found on its own, or under `state_dict`, `model`
    or `ema`.

    Raises:
        ToodError: if the file is missing, empty, cut off, no file of weights, holds no tensors, or holds a pickle that
            asks to run something.
    """
    path = Path(path)
    if not path.is_file():
        raise ToodError(f"there is no weights file {path}: check the path, or name a model of `tood models`")
    with path.open("rb") as file:
        start = file.read(64)
    if not start:
        raise ToodError(f"{path} is empty: copy or download it again")
    _refuse_text(start, path)
    if path.suffix == ".safetensors" or start[8:9] == b"{":
        tensors, metadata = read_safetensors(path)
        return Checkpoint(_of_the_network(tensors, path), described(metadata, path)[1], metadata, path)
    try:
        saved = read_torch_file(path)
        tensors = _read(_state_dict(saved.data, path), saved, path)
    except HostileError as error:
        raise ToodError(
            f"{path} is refused: reading it as its format intends would run {error}, which no file of weights needs; "
            "get it from a source that you trust"
        ) from error
    except DamagedError as error:
        raise ToodError(f"{path} is no readable file of weights ({error}): is it complete?") from error
    metadata = _metadata(saved.data)
    class_names = _class_names(saved.data) or described(metadata, path)[1]
    return Checkpoint(_of_the_network(tensors, path), class_names, metadata, path)


def _refuse_text(start: bytes, path: Path) -> None:
    if start.startswith(b"version https://git-lfs"):
        raise ToodError(f"{path} is only a pointer to the file: fetch the file itself with `git lfs pull`")
    if start.lstrip().startswith(b"<"):
        raise ToodError(f"{path} is a web page, not a file of weights: download the file that the page offers")


def _state_dict(data: Any, path: Path) -> Mapping[str, Any]:
    """The mapping of names to tensors in what was saved."""
    if not isinstance(data, dict):
        raise ToodError(f"{path} holds {_kind(data)}, not a state dict: save the model's state_dict() instead")
    held = next((key for key in _STATE_DICTS if key in data), None)
    if held is None:
        if any(isinstance(value, StoredTensor | StoredArray) for value in data.values()):
            return data
        raise ToodError(f"{path} holds no tensors: its keys are {', '.join(list(data)[:5]) or 'none'}")
    inner = data[held]
    if isinstance(inner, dict):  # an average wraps the state dict once more
        inner = next((inner[key] for key in ("state_dict", "module") if isinstance(inner.get(key), dict)), inner)
    if not isinstance(inner, dict):
        raise ToodError(f"{path} holds under '{held}' {_kind(inner)}, not a state dict: save its state_dict() instead")
    return inner


def _read(state: Mapping[str, Any], saved: TorchFile, path: Path) -> dict[str, Tensor]:
    tensors: dict[str, Tensor] = {}
    for name, value in state.items():
        if not isinstance(value, StoredTensor | StoredArray):
            raise ToodError(f"{path} is no file of weights: '{name}' in it is {_kind(value)}, not a plain tensor")
        tensors[name] = saved.read(value)
    return tensors


def _of_the_network(tensors: Mapping[str, Tensor], path: Path) -> dict[str, Tensor]:
    """Without what is not of the network, and without the prefixes of wrappers for parallel training."""
    names = list(tensors)
    while names and all(name.startswith("module.") for name in names):
        names = [name.removeprefix("module.") for name in names]
    kept = {
        name: tensor
        for name, tensor in zip(names, tensors.values(), strict=True)
        if not name.startswith(_NOT_OF_THE_NETWORK)
    }
    if not kept:
        raise ToodError(f"{path} holds no tensors of a network")
    return kept


def _class_names(data: Any) -> tuple[str, ...] | None:
    """Where MMDetection 2.x, 3.x and others keep them."""
    meta = _dict(data, "meta")
    places = (
        meta.get("CLASSES"),
        *(_dict(holder, "dataset_meta").get(key) for holder in (meta, data) for key in ("classes", "CLASSES")),
        meta.get("classes"),
    )
    for names in places:
        if isinstance(names, str):  # ("cat") is no tuple, as many have found
            return (names,)
        if isinstance(names, list | tuple) and names and all(isinstance(name, str) for name in names):
            return tuple(names)
    return None


def _metadata(data: Any) -> dict[str, str]:
    meta = _dict(data, "meta")
    ours = _dict(meta, OUR_META)
    metadata = {key: value for key, value in ours.items() if isinstance(value, str)}
    sources = [source for source in (meta.get("config"), meta.get("cfg")) if isinstance(source, str)]
    return metadata | ({FRAMEWORK_CONFIG: sources[0]} if sources else {})


def _dict(holder: Any, key: str) -> dict[str, Any]:
    value = holder.get(key) if isinstance(holder, dict) else None
    return value if isinstance(value, dict) else {}


def _kind(value: Any) -> str:
    if isinstance(value, Inert):
        return f"an object of {value.name}"
    if isinstance(value, StoredTensor | StoredArray):
        return "a single tensor"
    return f"a value of type {type(value).__name__}"
