"""A model on its way to other machines, which have neither its file nor the web."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tood.engines import is_exported
from tood.errors import ToodError
from tood.weights import load_detector_file, locate_weights, save_weights
from tood.whole_file import scratch_folder


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
        located = locate_weights(name_or_file)
        for path in located.files:
            if not path.is_file():
                raise ToodError(f"there is no file {path}, which belongs to {located.path.name}: keep them together")
        shipped = ShippedModel({path.name: path.read_bytes() for path in located.files})
        if shipped.is_exported:
            return shipped
        model, class_names = load_detector_file(located.path, located.config)  # what is wrong with it is said here
        if located.path.suffix == ".safetensors" and located.config is None:
            return shipped
        # Some layouts show their architecture by a name or a file's name alone: ours by itself.
        with scratch_folder() as folder:
            path = folder / "model.safetensors"
            save_weights(path, model, class_names)
            return ShippedModel({path.name: path.read_bytes()})

    @property
    def is_exported(self) -> bool:
        """Whether it is another engine's file, with a precision of its own."""
        return is_exported(next(iter(self.files)))

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
