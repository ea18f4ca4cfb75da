"""A model on its way to other machines, which have neither its file nor the web."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tood.errors import ToodError
from tood.weights import load_model, locate_weights, save_weights

# Files of other engines, with what lies beside them.
_OTHER_ENGINES: Mapping[str, tuple[str, ...]] = {".onnx": (".onnx",), ".xml": (".xml", ".bin"), ".pt2": (".pt2",)}


@dataclass(frozen=True)
class ShippedModel:
    """The bytes of a model's files.

    Attributes:
        files: content by file name; the first is the model, any other lies beside it.
    """

    files: Mapping[str, bytes]

    @staticmethod
    def of(name_or_file: str) -> ShippedModel:
        """The model of that name or file, looked at on this machine.

        Raises:
            ToodError: if there is no such model.
        """
        suffixes = _OTHER_ENGINES.get(Path(name_or_file).suffix)
        if suffixes:
            paths = [Path(name_or_file).with_suffix(suffix) for suffix in suffixes]
            missing = [str(path) for path in paths if not path.is_file()]
            if missing:
                raise ToodError(f"there is no file {', '.join(missing)}: check the path")
            return ShippedModel({path.name: path.read_bytes() for path in paths})
        located = locate_weights(name_or_file)
        if located.path.suffix == ".safetensors" and located.config is None:
            load_model(name_or_file)  # what is wrong with it is said here
            return ShippedModel({located.path.name: located.path.read_bytes()})
        # Some layouts show their architecture by a name or a file's name alone: ours by itself.
        model, class_names = load_model(name_or_file)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "model.safetensors"
            save_weights(path, model, class_names)
            return ShippedModel({path.name: path.read_bytes()})

    @property
    def is_exported(self) -> bool:
        """Whether it is another engine's file, with a precision of its own."""
        return Path(next(iter(self.files))).suffix in _OTHER_ENGINES

    @property
    def digest(self) -> str:
        """By what the model is known: SHA-256 over its files."""
        whole = hashlib.sha256()
        for content in self.files.values():
            whole.update(hashlib.sha256(content).digest())
        return whole.hexdigest()

    def unpack(self, folder: Path) -> Path:
        """Write the files into a folder; gives the model's."""
        for name, content in self.files.items():
            (folder / name).write_bytes(content)
        return folder / next(iter(self.files))
