"""Weights of a convolution in the order of memory that oneDNN wants, which depends on the map that comes."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from functools import lru_cache
from itertools import islice
from typing import TypeAlias

import torch
from torch import Tensor

# Strides of a layout, then sizes of its blocks and the dimensions that they are of.
Order: TypeAlias = tuple[int, ...]
# Zeros on each side of a map, stride, dilation (each down and across), groups.
Geometry: TypeAlias = tuple[tuple[int, int], tuple[int, int], tuple[int, int], int]

# Of oneDNN's `dnnl_memory_desc`, in bytes: how many dimensions, the dimensions, their strides, how many inner blocks,
# the blocks' sizes, and of which dimensions they are.
_RANK, _DIMENSIONS, _STRIDES, _BLOCKS, _BLOCK_SIZES, _BLOCK_DIMENSIONS = 4, 8, 320, 416, 424, 520
_MOST = 12  # dimensions, and blocks
_END = _BLOCK_DIMENSIONS + 8 * _MOST
# Maps that differ, of all convolutions, of which it is remembered what they want: 4 MiB.
_REMEMBERED = 1 << 14
# Orders in which the same weights are kept; three is the most that was seen.
_KEPT = 4
# Of the maps whose order is taken where the wanted one is not told.
_TYPICAL_SIDE = 64


class OrderedWeights:
    """A convolution's weights in each order that the maps which came wanted: mostly one, at most four.

    oneDNN comes from a wrong order to the right one at every call, and slowly: in 3.5 ms for 96 x 96 channels in bf16,
    on maps on which the convolution takes 0.03.

    Args:
        weight: [O, C / groups, k, k] on the CPU, in contiguous memory of its own, without gradients.
    """

    def __init__(self, weight: Tensor) -> None:
        self._shape = tuple(weight.shape)
        self._dtype = weight.dtype
        self._plain: Tensor | None = weight  # until the first map comes
        self._ordered: dict[Order | None, Tensor] = {}

    def wanted_for(self, x: Tensor, geometry: Geometry) -> Tensor:
        """The weights for maps x, [B, C, H, W], and a convolution of that geometry.

        Where this PyTorch does not tell what oneDNN wants, kernels of 1x1 are plain and others as typical maps want
        them: right, but maybe brought into another order at each call.
        """
        order = _wanted_order(self._shape, self._dtype, geometry, tuple(x.shape), torch.get_num_threads())
        # Other threads may be looking: what is read first is written last.
        plain, ordered = self._plain, self._ordered
        if order not in ordered:
            weight = next(iter(ordered.values())).to_dense() if plain is None else plain
            if order is not None:
                weight = _reordered(weight, geometry, x.shape)
            elif self._shape[-1] > 1:
                weight = _reordered(weight, geometry, (1, x.shape[1], _TYPICAL_SIDE, _TYPICAL_SIDE))
            ordered = dict(islice(ordered.items(), max(len(ordered) + 1 - _KEPT, 0), None)) | {order: weight}
            self._ordered = ordered
            self._plain = None
        return ordered[order]


@lru_cache(_REMEMBERED)
def _wanted_order(
    weight: tuple[int, ...], dtype: torch.dtype, geometry: Geometry, maps: tuple[int, ...], threads: int
) -> Order | None:
    """The order that weights of that shape should have for such maps and threads; None if it is not told."""
    describe = getattr(torch.ops.mkldnn, "_get_mkldnn_serialized_md", None)
    if describe is None:
        return None
    anything = torch.empty(weight, dtype=dtype, device="cpu")
    return _order(describe(_reordered(anything, geometry, maps)).numpy().tobytes(), weight)


def _reordered(weight: Tensor, geometry: Geometry, maps: Sequence[int]) -> Tensor:
    return torch.ops.mkldnn._reorder_convolution_weight(weight, *geometry, list(maps))  # type: ignore[no-any-return]


def _order(description: bytes, weight: tuple[int, ...]) -> Order | None:
    """The order that a `dnnl_memory_desc` of weights of that shape describes; None if it is laid out in another way.

    Descriptions cannot be compared as bytes: entries beyond the rank and the number of blocks are not initialised.
    """
    if len(description) < _END:
        return None
    (rank,) = struct.unpack_from("i", description, _RANK)
    (blocks,) = struct.unpack_from("i", description, _BLOCKS)
    if not (rank in (4, 5) and 0 <= blocks <= _MOST):
        return None
    dimensions = struct.unpack_from(f"{rank}q", description, _DIMENSIONS)
    # With groups there is one dimension more: [groups, O / groups, C / groups, k, k].
    if dimensions[-3:] != weight[1:] or torch.Size(dimensions).numel() != torch.Size(weight).numel():
        return None
    return (
        *struct.unpack_from(f"{rank}q", description, _STRIDES),
        *struct.unpack_from(f"{blocks}q", description, _BLOCK_SIZES),
        *struct.unpack_from(f"{blocks}q", description, _BLOCK_DIMENSIONS),
    )
