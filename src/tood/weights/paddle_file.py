"""Paddle's files of weights (.pdparams), without Paddle: one pickle of names and numpy arrays, never executed."""

from __future__ import annotations

import json
import pickle
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tood.weights.inert_pickle import DamagedError
from tood.weights.safetensors_file import OUR_META
from tood.weights.stored_arrays import StoredArray

# Beside the arrays, under this key: what Paddle itself calls each tensor.
_PADDLE_NAMES = "StructuredToParameterName@@"
# What our own files say of themselves: JSON as bytes in one more array, which paddle.load gives back as it is and a
# network that takes its tensors by name passes over.
_METADATA = "tood.metadata"


def arrays_in(data: Any) -> dict[str, Any] | None:
    """What a file of paddle.save holds, as one of torch.save would: arrays under `state_dict`, and `meta` where it is
    ours; None if the pickle's data is of another kind of file.

    Raises:
        DamagedError: if what our own file says of itself is damaged.
    """
    if not isinstance(data, dict) or not any(isinstance(value, StoredArray) for value in data.values()):
        return None
    arrays = {name: value for name, value in data.items() if name not in (_PADDLE_NAMES, _METADATA)}
    said = data.get(_METADATA)
    return {"state_dict": arrays, "meta": {} if said is None else {OUR_META: _metadata(said)}}


def _metadata(said: Any) -> dict[str, Any]:
    content = said.content if isinstance(said, StoredArray) else None
    try:
        metadata = json.loads(_bytes(content or b""))
    except (ValueError, RecursionError) as error:
        raise DamagedError("what it says of its network is damaged") from error
    return metadata if isinstance(metadata, dict) else {}


class ArrayValues:
    """Tensors on the bytes of arrays; those that share their bytes share them again."""

    def __init__(self) -> None:
        self._found: dict[int, Tensor] = {}

    def read(self, array: StoredArray) -> Tensor:
        """The array's values; they are to be copied, not written to.

        Raises:
            DamagedError: if they are not all there.
        """
        content, dtype = array.content, array.dtype
        if content is None:
            raise DamagedError(array.problem)
        count = 1
        for side in array.shape:
            count *= side
        if len(content) != count * dtype.itemsize:
            raise DamagedError(f"an array in it of the shape {list(array.shape)} has {len(content):,} bytes")
        if not count:
            return torch.empty(array.shape, dtype=dtype)
        if id(content) not in self._found:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # that bytes cannot be written to
                self._found[id(content)] = torch.frombuffer(_bytes(content), dtype=torch.uint8)
        values = self._found[id(content)]
        # numpy's own bytes lie where they fall.
        values = (values.clone() if values.data_ptr() % dtype.itemsize else values).view(dtype)
        if array.by_columns:
            return values.view(array.shape[::-1]).permute(*reversed(range(len(array.shape))))
        return values.view(array.shape)


def _bytes(content: bytes | bytearray | str) -> bytes | bytearray:
    try:
        return content.encode("latin-1") if isinstance(content, str) else content
    except UnicodeEncodeError as error:
        raise DamagedError("the values of an array in it are a text") from error


def write_pdparams(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Writes tensors by name as paddle.save does, so that paddle.load reads them, and what is to be known of them.

    Raises:
        OSError: if it cannot be written.
    """
    arrays = {name: tensor.detach().cpu().contiguous().numpy() for name, tensor in tensors.items()}
    arrays[_METADATA] = np.frombuffer(json.dumps(dict(metadata)).encode(), np.uint8)
    with path.open("wb") as file:
        pickle.dump(arrays, file, protocol=4)
