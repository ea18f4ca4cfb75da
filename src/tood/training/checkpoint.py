"""Checkpoints: everything that a run needs to go on as if it had never stopped."""

from __future__ import annotations

import io
import os
import random
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tood.errors import ToodError

CHECKPOINT = "checkpoint.pt"
# Raised when what a checkpoint must hold changes.
FORMAT = 1


def write_checkpoint(folder: Path, state: Mapping[str, Any], keep: int = 1) -> Path:
    """Writes `checkpoint.pt`: to a temporary file, flushed to the disk, then renamed over the old one.

    Args:
        folder: of the run.
        state: tensors, numbers, strings, and lists, tuples and dicts of them.
        keep: with 2 or more, so many of the newest stay, the older ones as `checkpoint-<number>.pt`.

    Raises:
        ToodError: if the disk does not take it; the previous checkpoint is then intact.
    """
    path = folder / CHECKPOINT
    temporary = folder / f".{CHECKPOINT}.{os.getpid()}.tmp"
    try:
        with temporary.open("wb") as file:
            torch.save({"format": FORMAT, **state}, file)
            file.flush()
            os.fsync(file.fileno())
        if keep > 1:
            _set_aside(path, keep - 1)
        temporary.replace(path)
        _flush_folder(folder)
    except (OSError, RuntimeError) as error:
        # PyTorch reports a failed write as a RuntimeError.
        raise ToodError(f"cannot write {path} ({error}); the checkpoint before it is intact") from error
    finally:
        temporary.unlink(missing_ok=True)
    return path


def read_checkpoint(folder: Path) -> dict[str, Any]:
    """What `write_checkpoint` was given; nothing in the file is executed.

    Raises:
        ToodError: if there is none, or it is damaged or of another format.
    """
    return parse_checkpoint(checkpoint_bytes(folder), folder)


def checkpoint_bytes(folder: Path) -> bytes:
    """The file's content, for processes that cannot see it.

    Raises:
        ToodError: if there is none.
    """
    path = folder / CHECKPOINT
    if not path.is_file():
        raise ToodError(f"there is no {path} to resume from: leave --resume out to start a new run")
    return path.read_bytes()


def parse_checkpoint(content: bytes, folder: Path) -> dict[str, Any]:
    """What `write_checkpoint` was given for the folder, from the file's content.

    Raises:
        ToodError: if it is damaged or of another format.
    """
    path = folder / CHECKPOINT
    try:
        state: dict[str, Any] = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except Exception as error:  # the unpickler meets garbage with whatever comes of it
        first_line = (str(error).strip() or type(error).__name__).split("\n")[0]
        raise ToodError(f"{path} is damaged ({first_line}): copy an older checkpoint-*.pt over it, if any") from error
    if not isinstance(state, dict) or state.get("format") != FORMAT:
        raise ToodError(f"{path} is no checkpoint of this version of tood")
    return state


def _set_aside(path: Path, keep: int) -> None:
    """Keeps the present checkpoint under its own name, and only `keep` such."""
    if path.is_file():
        numbered = [int(p.stem.rpartition("-")[2]) for p in path.parent.glob("checkpoint-*.pt")]
        target = path.with_name(f"checkpoint-{max(numbered, default=0) + 1:06d}.pt")
        try:
            target.hardlink_to(path)
        except OSError:  # a file system without links
            shutil.copyfile(path, target)
    kept = sorted(path.parent.glob("checkpoint-*.pt"))
    for old in kept[: max(len(kept) - keep, 0)]:
        old.unlink()


def _flush_folder(folder: Path) -> None:
    """Makes the rename itself outlive a power cut, where the system lets folders be flushed."""
    if os.name == "posix":
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def random_states() -> dict[str, Any]:
    """State of every random generator of this process."""
    name, keys, position, has_gauss, cached = np.random.get_state(legacy=True)  # noqa: NPY002 - of the global one
    return {
        "python": random.getstate(),
        "numpy": (str(name), torch.from_numpy(np.asarray(keys).copy()), position, has_gauss, cached),
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
    }


def set_random_states(states: Mapping[str, Any]) -> None:
    """Takes up what `random_states` gave."""
    random.setstate(states["python"])
    name, keys, *rest = states["numpy"]
    np.random.set_state((name, keys.numpy(), *rest))  # noqa: NPY002 - of the global one
    torch.set_rng_state(states["torch"])
    if torch.cuda.is_available() and len(states["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(states["cuda"])
