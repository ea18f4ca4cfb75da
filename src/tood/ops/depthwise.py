"""Gradients of depthwise convolutions on a CPU: each channel has a kernel of its own.

oneDNN 3.12, which PyTorch 2.13 computes them with, has code for such layers forwards, for the gradient towards their
input in fp32, and for that towards kernels of up to three columns. All else takes its code for groups of 16 channels,
of which 15 are zeros: up to fifty times the time of the forward pass. What is asked of it here is what it has code for.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tood.ops.conv_geometry import Geometry, library_gradients

# Columns of the kernels that oneDNN has code for.
COLUMNS = 3
# Numbers of a map that are copied and read again at a time: 2 MiB in bf16, which a core's cache keeps.
AT_ONCE = 1 << 20


def is_depthwise(conv: nn.Conv2d) -> bool:
    """Whether each channel is convolved by itself, in kernels that leave no cell out, without dilation."""
    by_itself = conv.groups == conv.in_channels == conv.out_channels > 1 and conv.dilation == (1, 1)
    return by_itself and all(side >= stride for side, stride in zip(conv.kernel_size, conv.stride, strict=True))


def depthwise_gradients(
    geometry: Geometry, x: Tensor, weight: Tensor, gradient: Tensor, *, to_x: bool, to_weight: bool
) -> tuple[Tensor | None, Tensor | None]:
    """As `convolution_gradients`, of convolutions that `is_depthwise` knows; `library_gradients` is their definition.

    Beside the gradients it takes memory for a quarter of x (at stride 2), and for a copy of `AT_ONCE` numbers or one
    image of it.
    """
    gradient = gradient.contiguous(memory_format=torch.channels_last)
    found_x = found_weight = None
    if to_x:
        if x.dtype == torch.float32:
            found_x, _ = library_gradients(geometry, x, weight, gradient, to_x=True, to_weight=False)
        else:
            found_x = _input_gradient(geometry, x, weight, gradient)
    if to_weight:
        if geometry.is_symmetric and weight.shape[3] <= COLUMNS:
            _, found_weight = library_gradients(geometry, x, weight, gradient, to_x=False, to_weight=True)
        else:
            found_weight = _weight_gradient(geometry, x, weight, gradient)
    return found_x, found_weight


def _input_gradient(geometry: Geometry, x: Tensor, weight: Tensor, gradient: Tensor) -> Tensor:
    """[B, C, H, W]: the gradient convolved with the kernels turned by half a circle.

    With a stride, each of the stride's phases of x (cells of even rows and odd columns, say) saw every other row and
    column of the kernels and is a convolution of its own.
    """
    (down, across), (top, left) = geometry.stride, geometry.before
    rows, columns = (
        [_Phase.of(first, stride, before, kernel, side, cells) for first in range(min(stride, side))]
        for stride, before, kernel, side, cells in (
            (down, top, weight.shape[2], x.shape[2], gradient.shape[2]),
            (across, left, weight.shape[3], x.shape[3], gradient.shape[3]),
        )
    )

    def of_phase(row: _Phase, column: _Phase) -> Tensor:
        kernels = weight[:, :, row.taps, column.taps].flip(2, 3)
        padding = (row.padding, column.padding)
        return F.conv2d(gradient, kernels, padding=padding, groups=geometry.groups)[:, :, row.kept, column.kept]

    if geometry.stride == (1, 1):
        return of_phase(rows[0], columns[0])
    found = torch.empty_like(x, memory_format=torch.channels_last)
    for (i, row), (j, column) in itertools.product(enumerate(rows), enumerate(columns)):
        found[:, :, i::down, j::across] = of_phase(row, column)
    return found


@dataclass(frozen=True)
class _Phase:
    """Every stride-th cell of a side of x, as seen by a convolution.

    Attributes:
        taps: the kernel's cells that saw them.
        padding: zeros on either side of the gradient that they are convolved with.
        kept: what of the result is theirs.
    """

    taps: slice
    padding: int
    kept: slice

    @classmethod
    def of(cls, first: int, stride: int, before: int, kernel: int, side: int, cells: int) -> _Phase:
        """Of x's cells from `first` on; `before` zeros lay before x, `cells` are those of the gradient's side."""
        # Output y saw cell x of the input with the kernel's cell x + before - y * stride.
        nearest = (first + before) % stride
        shift = (first + before - nearest) // stride
        count = -((nearest - kernel) // stride)
        found = -((first - side) // stride)
        left, right = count - 1 - shift, found + shift - cells
        padding = max(left, right, 0)
        return cls(slice(nearest, None, stride), padding, slice(padding - left, padding - left + found))


def _weight_gradient(geometry: Geometry, x: Tensor, weight: Tensor, gradient: Tensor) -> Tensor:
    """[C, 1, k, k], at least in fp32: three of the kernel's columns at a time, some images at a time."""
    found = torch.zeros(weight.shape, dtype=torch.promote_types(weight.dtype, torch.float32))
    parts = max(-(-x.numel() // AT_ONCE), 1)
    images = max(-(-len(x) // parts), 1)
    (down, across), (top, left) = geometry.stride, geometry.before
    (*_, tall, wide), (*_, height, width) = weight.shape, gradient.shape
    dense = replace(geometry, stride=(down, 1), before=(0, 0), after=(0, 0))
    for columns in _columns(wide, across):
        # What they saw from cell to cell, zeros outside of x included.
        size = (images, x.shape[1], (height - 1) * down + tall, width - 1 + len(range(wide)[columns]))
        seen = torch.empty(size, dtype=x.dtype, memory_format=torch.channels_last).zero_()
        zeros = max(-((columns.start - left) // across), 0)
        inside = seen[:, :, top:, zeros:]
        source = x[:, :, : inside.shape[2], columns.start - left + zeros * across :: across][..., : inside.shape[3]]
        inside = inside[:, :, : source.shape[2], : source.shape[3]]
        for start in range(0, len(x), images):
            some, towards = source[start : start + images], gradient[start : start + images]
            inside[: len(some)] = some
            kernels = weight[..., columns]
            part = library_gradients(dense, seen[: len(some)], kernels, towards, to_x=False, to_weight=True)[1]
            assert part is not None
            found[..., columns] += part
    return found


def _columns(wide: int, across: int) -> Iterator[slice]:
    """A kernel's columns: those together, `COLUMNS` at most, that saw the same columns of x, one cell apart."""
    for phase in range(across):
        for first in range(phase, wide, COLUMNS * across):
            yield slice(first, min(first + COLUMNS * across, wide), across)
