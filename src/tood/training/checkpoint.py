"""Checkpoints: everything that a run needs to go on as if it had never stopped."""

from __future__ import annotations

import hashlib
import io
import random
import re
import shutil
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from torch import Tensor

from tood.errors import ToodError, first_line
from tood.whole_file import whole_file

CHECKPOINT = "checkpoint.pt"
# An older one's name, and where one goes that is damaged.
NUMBERED = r"checkpoint-(\d{6,})\.pt"
DAMAGED = "damaged-checkpoint.pt"
# Raised when what a checkpoint must hold changes.
FORMAT = 2
# The file's last bytes: this mark and the SHA-256 of all before it.
_MARK = b"tood-sha256:"
_TAIL = len(_MARK) + hashlib.sha256().digest_size


class CheckpointWriteError(ToodError):
    """A checkpoint that could not be written."""


def write_checkpoint(folder: Path, state: Mapping[str, Any], keep: int = 1) -> Path:
    """Writes `checkpoint.pt` with a checksum: to a temporary file, flushed to the disk, then renamed over the old one.

    Args:
        folder: of the run.
        state: tensors, numbers, strings, and lists, tuples and dicts of them.
        keep: with 2 or more, so many of the newest stay, the older ones as `checkpoint-<number>.pt`.

    Raises:
        CheckpointWriteError: if the disk does not take it; the previous checkpoint is then intact.
    """
    path, hashing = folder / CHECKPOINT, _HashingFile()
    try:
        with whole_file(path, durable=True) as temporary:
            with temporary.open("wb") as hashing.file:
                torch.save({"format": FORMAT, **state}, hashing)  # type: ignore[arg-type]  # it only writes
                hashing.file.write(_MARK + hashing.digest())
            if keep > 1:
                _set_aside(path, keep - 1)
    except (OSError, RuntimeError, ToodError) as error:
        # PyTorch hides a failed write behind a RuntimeError about positions.
        cause = hashing.failure or error.__cause__ or error
        raise CheckpointWriteError(f"cannot write {path} ({cause}); the checkpoint before it is intact") from error
    return path


def read_checkpoint(folder: Path) -> dict[str, Any]:
    """What `write_checkpoint` was given, of the newest one that is whole; nothing in the file is executed.

    Raises:
        ToodError: if there is none, or it is damaged or of another format.
    """
    found = newest_checkpoint(folder)
    if found is None:
        raise ToodError(f"there is no {folder / CHECKPOINT}")
    return parse_checkpoint(*found)


def newest_checkpoint(folder: Path) -> tuple[bytes, Path] | None:
    """Content and path of the newest checkpoint that is whole; None where none was written yet.

    Raises:
        ToodError: if there are some, and all are damaged.
    """
    paths = [path for path in (folder / CHECKPOINT, *reversed(_numbered(folder))) if path.is_file()]
    for path in paths:
        content = path.read_bytes()
        with suppress(ToodError):
            _checked(content, path)
            return content, path
    if paths:
        raise ToodError(f"{paths[0]} is damaged, and there is no older checkpoint: start anew in another --out")
    return None


def put_damaged_aside(folder: Path, whole: Path) -> Path | None:
    """Takes those that are newer than the newest whole one out of the row, so that they do not push that out.

    Args:
        folder: of the run.
        whole: what `newest_checkpoint` found there.

    Returns:
        Where the oldest of them is now, None where there was none.
    """
    aside = None
    for path in (folder / CHECKPOINT, *reversed(_numbered(folder))):
        if path == whole:
            break
        if path.is_file():
            aside = path.replace(folder / DAMAGED)
    return aside


def is_checkpoint(path: Path) -> bool:
    """Whether it ends as `write_checkpoint` ends a file, damaged or not."""
    try:
        with path.open("rb") as file:
            file.seek(-_TAIL, io.SEEK_END)
            return file.read(len(_MARK)) == _MARK
    except OSError:
        return False


def parse_checkpoint(content: bytes, path: Path) -> dict[str, Any]:
    """What `write_checkpoint` was given, from the file's content; `path` is where it was.

    Raises:
        ToodError: if it is damaged or of another format.
    """
    body = _checked(content, path)
    try:
        state: dict[str, Any] = torch.load(io.BytesIO(body), map_location="cpu", weights_only=True)
    except Exception as error:  # of another PyTorch, or nothing but the checksum is right
        raise ToodError(f"{path} cannot be read by this PyTorch: {first_line(error)}") from error
    if not isinstance(state, dict) or state.get("format") != FORMAT:
        raise ToodError(f"{path} is no checkpoint of this version of tood")
    return state


def _checked(content: bytes, path: Path) -> memoryview:
    """The content without its checksum, which is right."""
    body, end = memoryview(content)[:-_TAIL], content[-_TAIL:]
    if not end.startswith(_MARK) or hashlib.sha256(body).digest() != end[len(_MARK) :]:
        raise ToodError(f"{path} is damaged or no checkpoint of this version of tood: its checksum does not fit")
    return body


class _HashingFile:
    """Writes to a file and adds up the SHA-256 of what it is given."""

    file: BinaryIO
    failure: OSError | None = None

    def __init__(self) -> None:
        self._hash = hashlib.sha256()

    def write(self, data: bytes) -> int:
        self._hash.update(data)
        try:
            return self.file.write(data)
        except OSError as error:
            self.failure = error
            raise

    def flush(self) -> None:
        self.file.flush()

    def digest(self) -> bytes:
        """The SHA-256 of all that was written so far."""
        return self._hash.digest()


def _set_aside(path: Path, keep: int) -> None:
    """Keeps the present checkpoint under its own name, and only `keep` such."""
    if path.is_file():
        numbered = _numbered(path.parent)
        target = path.with_name(f"checkpoint-{_number(numbered[-1]) + 1 if numbered else 1:06d}.pt")
        try:
            target.hardlink_to(path)
        except OSError:  # a file system without links
            shutil.copyfile(path, target)
    kept = _numbered(path.parent)
    for old in kept[: max(len(kept) - keep, 0)]:
        old.unlink()


def _numbered(folder: Path) -> list[Path]:
    """The older checkpoints, the oldest first."""
    found = [path for path in folder.glob("checkpoint-*.pt") if re.fullmatch(NUMBERED, path.name)]
    return sorted(found, key=_number)


def _number(path: Path) -> int:
    return int(path.stem.rpartition("-")[2])


def random_states() -> dict[str, Any]:
    """State of every random generator of this process, without tensors: processes can send it to each other."""
    name, keys, position, has_gauss, cached = np.random.get_state(legacy=True)  # noqa: NPY002 - of the global one
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
    return {
        "python": random.getstate(),
        "numpy": (str(name), np.asarray(keys).tobytes(), position, has_gauss, cached),
        "torch": torch.get_rng_state().numpy().tobytes(),
        "cuda": [state.numpy().tobytes() for state in cuda],
    }


def set_random_states(states: Mapping[str, Any]) -> None:
    """Puts every random number generator into the state that `random_states` found it in."""
    random.setstate(states["python"])
    name, keys, *rest = states["numpy"]
    np.random.set_state((name, np.frombuffer(keys, np.uint32), *rest))  # noqa: NPY002 - of the global one
    torch.set_rng_state(_state(states["torch"]))
    if torch.cuda.is_available() and len(states["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all([_state(state) for state in states["cuda"]])


def _state(content: bytes) -> Tensor:
    return torch.frombuffer(bytearray(content), dtype=torch.uint8)
