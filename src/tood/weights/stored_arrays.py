"""numpy's arrays in a pickle, as records of their bytes: how numpy spells them, read without calling anything."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import torch

_MOST_SIDES = 64
# Bytes of so many are counted in 64 bits.
_MOST_ELEMENTS = 2**59
# Old and new numpy's.
_RECONSTRUCT, _FROM_BUFFER = (
    frozenset(f"numpy.{core}.{name}" for core in ("core", "_core"))
    for name in ("multiarray._reconstruct", "numeric._frombuffer")
)
_DTYPES: Mapping[str, torch.dtype] = MappingProxyType(
    {
        "f2": torch.float16,
        "f4": torch.float32,
        "f8": torch.float64,
        "i1": torch.int8,
        "i2": torch.int16,
        "i4": torch.int32,
        "i8": torch.int64,
        "u1": torch.uint8,
        "b1": torch.bool,
    }
)


@dataclass(eq=False)
class StoredArray:
    """An array: what the pickle said of it.

    Files of weights hold arrays of other kinds too, such as a random generator's state, beside those that are read.

    Attributes:
        dtype: of the elements.
        shape: sides.
        by_columns: whether its first index runs fastest (Fortran's order).
        content: its bytes, or a text of their values in Latin-1, as protocols before 3 have no bytes; None where it
            cannot be read.
        problem: why it cannot.
    """

    dtype: torch.dtype = torch.uint8
    shape: tuple[int, ...] = ()
    by_columns: bool = False
    content: bytes | bytearray | str | None = None
    problem: str = "the values of an array in it are missing"

    def fill(self, content: Any, kind: Any, shape: Any, by_columns: bool) -> None:
        """Takes what the pickle says."""
        dtype = _DTYPES.get(kind.code) if isinstance(kind, _ArrayType) and kind.little else None
        self.content = None
        if dtype is None or not isinstance(content, bytes | bytearray | str):
            self.problem = "an array in it is of no plain numbers, little end first"
        elif not _is_shape(shape):
            self.problem = "the shape of an array in it makes no sense"
        else:
            self.dtype, self.shape, self.by_columns, self.content = dtype, shape, by_columns, content


@dataclass(eq=False)
class _ArrayType:
    """A dtype: its code, such as "f4", and whether its state said that bytes lie little end first."""

    code: str
    little: bool = False


def constructed(name: str, arguments: Sequence[Any], first: str) -> object | None:
    """What a function or class of numpy makes of the arguments, None if it is none that arrays need.

    Args:
        name: of the function or class.
        arguments: of the call.
        first: name of the class that is the first argument, empty if it is no class.
    """
    if name in _RECONSTRUCT and first == "numpy.ndarray":
        return StoredArray()
    if name in _FROM_BUFFER:
        array = StoredArray()
        if len(arguments) == 4:
            content, kind, shape, order = arguments
            array.fill(content, kind, shape, order == "F")
        return array
    if name == "numpy.dtype" and arguments and isinstance(arguments[0], str):
        return _ArrayType(arguments[0])
    return None


def set_state(built: object, state: Any) -> None:
    """Takes what arrays and dtypes are filled with; any other object's state is left."""
    if isinstance(built, _ArrayType) and isinstance(state, tuple) and len(state) > 1:
        built.little = state[1] == "<" or (state[1] == "|" and built.code[1:] == "1")
    elif isinstance(built, StoredArray) and isinstance(state, tuple) and len(state) == 5:
        _, shape, kind, by_columns, content = state
        built.fill(content, kind, shape, by_columns is True)


def _is_shape(value: Any) -> bool:
    """Whether it is sides whose strides can be counted, also where one of them is 0."""
    if not isinstance(value, tuple) or len(value) > _MOST_SIDES or not all(map(_is_side, value)):
        return False
    elements: int = math.prod(max(side, 1) for side in value)
    return elements < _MOST_ELEMENTS


def _is_side(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < _MOST_ELEMENTS
