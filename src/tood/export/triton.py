"""An ONNX file as a model repository of NVIDIA's Triton Inference Server."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from tood.engines import is_exported
from tood.errors import ToodError, first_line
from tood.whole_file import settle_unfinished, whole_folder

if TYPE_CHECKING:
    import onnx

# Numbers of ONNX's TensorProto.DataType -> Triton's words (docs/user_guide/model_configuration, "Datatypes").
_TYPES = {
    1: "TYPE_FP32",
    2: "TYPE_UINT8",
    3: "TYPE_INT8",
    5: "TYPE_INT16",
    6: "TYPE_INT32",
    7: "TYPE_INT64",
    9: "TYPE_BOOL",
    10: "TYPE_FP16",
    11: "TYPE_FP64",
    16: "TYPE_BF16",
}
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
MODEL_FILE = "model.onnx"
"""What the file is called in the repository."""

# Keys of a file's metadata under which class names may stand.
_CLASS_NAMES = ("class_names", "names", "classes")


@dataclass(frozen=True)
class TritonConfig:
    """How Triton runs a model.

    Attributes:
        device: where; "auto" is a GPU where the server has one.
        instances: copies that compute at the same time.
        batch: pictures that Triton may put together from several requests, where the file takes any number.
        wait_microseconds: that a picture waits for others.
    """

    device: Literal["auto", "cpu", "gpu"] = "auto"
    instances: int = 1
    batch: int = 8
    wait_microseconds: int = 2000


@dataclass(frozen=True)
class _Tensor:
    """An input or output of a file: name, Triton's type, sizes (-1 for any), and the names of those that vary."""

    name: str
    kind: str
    sizes: tuple[int, ...]
    first: str


def write_triton_repository(
    onnx_file: Path,
    out: Path,
    name: str | None = None,
    config: TritonConfig = TritonConfig(),
    papers: Sequence[Path] = (),
) -> Path:
    """Writes `out/NAME/` with config.pbtxt, labels.txt and 1/model.onnx, for `tritonserver --model-repository out`.

    A file whose inputs and outputs all begin with the same dimension of any size is run in batches that Triton puts
    together; any other as it is, its dimensions as they stand.

    Args:
        onnx_file: what to serve; tensors that it keeps in files beside it come along.
        out: the model repository, which may hold other models.
        name: of the model there; None takes the file's.
        config: how it is run.
        papers: files that are put into the model's folder, such as a certificate; a name that begins with the file's
            begins with the name that the file has there, "model.onnx".

    Returns:
        The model's folder.

    Raises:
        ToodError: if the file is no ONNX file, has types or names that Triton does not take, or the repository has a
            model of that name.
    """
    called = onnx_file.stem if name is None else name
    target = triton_folder(out, called)
    if min(config.instances, config.batch) < 1 or config.wait_microseconds < 0:
        raise ToodError("instances and batch are at least 1, wait_microseconds at least 0")
    model = _load(onnx_file)
    text, labels = config_pbtxt(model, called, config), _class_names(model)
    beside = _external_files(model, onnx_file)
    settle_unfinished(target, Path.rmdir)
    try:
        with whole_folder(target) as folder:
            (folder / "config.pbtxt").write_text(text, encoding="utf-8")
            if labels:
                (folder / "labels.txt").write_text("".join(f"{label}\n" for label in labels), encoding="utf-8")
            (folder / "1").mkdir()
            shutil.copyfile(onnx_file, folder / "1" / MODEL_FILE)
            for path in beside:
                shutil.copyfile(path, folder / "1" / path.name)
            for path in papers:
                own = path.name.startswith(onnx_file.name)
                shutil.copyfile(path, folder / (path.name.replace(onnx_file.name, MODEL_FILE, 1) if own else path.name))
    except OSError as error:
        raise ToodError(f"{target} cannot be written: {error.strerror or error}") from error
    return target


def triton_folder(out: Path, name: str) -> Path:
    """Where a model of that name goes in a model repository.

    Raises:
        ToodError: if Triton takes no such name, or there is one.
    """
    if not _NAME.fullmatch(name):
        raise ToodError(f"'{name}' is no name for a model of Triton's: use letters, digits, '_', '-' and '.'")
    target = out / name
    if target.exists():
        raise ToodError(f"{target} exists already: name another model, or remove it")
    return target


def config_pbtxt(model: onnx.ModelProto, name: str, config: TritonConfig) -> str:
    """The text of config.pbtxt.

    Raises:
        ToodError: if a tensor is of a type that Triton does not know.
    """
    stored = {tensor.name for tensor in model.graph.initializer}
    inputs = [_tensor(value) for value in model.graph.input if value.name not in stored]
    outputs = [_tensor(value) for value in model.graph.output]
    tensors = [*inputs, *outputs]
    batched = all(tensor.sizes and tensor.first and tensor.first == tensors[0].first for tensor in tensors)
    labelled = bool(_class_names(model))
    lines = [
        f'name: "{name}"',
        'backend: "onnxruntime"',
        f'default_model_filename: "{MODEL_FILE}"',
        f"max_batch_size: {config.batch if batched else 0}",
        *_tensors("input", inputs, batched, ()),
        *_tensors("output", outputs, batched, ("labels",) if labelled else ()),
    ]
    kind = {"auto": "KIND_AUTO", "cpu": "KIND_CPU", "gpu": "KIND_GPU"}[config.device]
    lines += [f"instance_group [ {{ count: {config.instances} kind: {kind} }} ]"]
    if batched and config.batch > 1:
        lines += [f"dynamic_batching {{ max_queue_delay_microseconds: {config.wait_microseconds} }}"]
    return "\n".join(lines) + "\n"


def _tensors(kind: str, tensors: Sequence[_Tensor], batched: bool, labelled: Sequence[str]) -> list[str]:
    told = []
    for tensor in tensors:
        sizes = ", ".join(map(str, tensor.sizes[1:] if batched else tensor.sizes))
        # A batch of numbers without any dimension of their own: Triton wants one to be named, and taken off again.
        shape = f"dims: [ {sizes} ]" if sizes else "dims: [ 1 ] reshape: { shape: [ ] }"
        label = ' label_filename: "labels.txt"' if tensor.name in labelled else ""
        told.append(f'  {{ name: "{tensor.name}" data_type: {tensor.kind} {shape}{label} }}')
    return [f"{kind} [", ",\n".join(told), "]"]


def _tensor(value: onnx.ValueInfoProto) -> _Tensor:
    kind = value.type.tensor_type
    if kind.elem_type not in _TYPES:
        raise ToodError(f"{value.name} is of ONNX's type {kind.elem_type}, which Triton does not take")
    sizes = tuple(size.dim_value if size.HasField("dim_value") else -1 for size in kind.shape.dim)
    first = kind.shape.dim[0].dim_param if sizes else ""
    return _Tensor(value.name, _TYPES[kind.elem_type], sizes, first)


def _class_names(model: onnx.ModelProto) -> list[str]:
    metadata: Mapping[str, str] = {entry.key: entry.value for entry in model.metadata_props}
    for key in _CLASS_NAMES:
        try:
            names = json.loads(metadata[key])
        except (KeyError, ValueError):
            continue
        if isinstance(names, list):
            return [" ".join(str(name).split()) for name in names]
    return []


def _load(path: Path) -> onnx.ModelProto:
    try:
        import onnx
        from google.protobuf.message import DecodeError
    except ImportError as error:
        raise ToodError("a model for Triton is made of an ONNX file: pip install 'tood[export]'") from error
    if not path.is_file():
        raise ToodError(f"there is no ONNX file {path}: check the path")
    if is_exported(path) and path.suffix.lower() != ".onnx":
        raise ToodError(f"{path} is no ONNX file, as Triton's repository takes: name the weights that it was made of")
    try:
        model = onnx.load(str(path), load_external_data=False)
        if not model.graph.output:
            raise ToodError(f"{path} is no ONNX file: it has no graph")
    except DecodeError as error:
        raise ToodError(f"{path} is no ONNX file, or the beginning of one: export the model again") from error
    except (ValueError, OSError) as error:
        raise ToodError(f"{path} is no ONNX file: {first_line(error)}") from error
    return model


def _external_files(model: onnx.ModelProto, onnx_file: Path) -> list[Path]:
    """Files beside the model in which some of its tensors are."""
    names = {
        entry.value for tensor in model.graph.initializer for entry in tensor.external_data if entry.key == "location"
    }
    paths = [onnx_file.parent / name for name in sorted(names)]
    for path in paths:
        if path.name not in names or not path.is_file():  # a name with a folder in it leads anywhere
            raise ToodError(f"{onnx_file} has tensors in the file {path}, which is not beside it")
    return paths
