"""What went wrong in PyTorch, where only the text of its error tells: the one place that reads such texts."""

from __future__ import annotations

import torch

_TOO_FEW_VALUES = "more than 1 value per channel"
# Of the process group that CPUs use; it raises plain RuntimeErrors.
_PROCESS_GROUP = "gloo"
_LOADING_PROCESS_DIED = ("DataLoader worker (pid", "Pin memory thread exited unexpectedly")
_SHARED_MEMORY = "shared memory"


def is_too_little_to_normalise(error: ValueError) -> bool:
    """Whether a BatchNorm in training was given a single value a channel, which has no variance."""
    return _TOO_FEW_VALUES in str(error)


def is_lost_connection(error: RuntimeError) -> bool:
    """Whether another process of a run does not answer any more."""
    return isinstance(error, torch.distributed.DistError) or _PROCESS_GROUP in str(error)


def is_loading_process_death(error: BaseException) -> bool:
    """Whether a process that loads for a DataLoader, or its thread for pinned memory, has ended unasked."""
    return str(error).startswith(_LOADING_PROCESS_DIED)


def is_out_of_shared_memory(error: BaseException) -> bool:
    """Whether a process that loads ended as there was no shared memory for its batch."""
    return _SHARED_MEMORY in str(error)


def without_workers_traceback(kind: type[Exception], message: str) -> str:
    """The message of an error that a DataLoader's worker raised.

    The loader raises it anew in the trainer with the worker's whole traceback, which ends in it, as its message.
    """
    return message.rsplit(f"{kind.__name__}: ", 1)[-1].strip()
