"""Where a convolution's kernel lies on a map, and PyTorch's own gradients of it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tood.ops.same_conv import SameConv2d


@dataclass(frozen=True)
class Geometry:
    """A convolution's, on maps of one size; pairs are down and across.

    PyTorch's and oneDNN's operators take as many zeros on either side of a map. With one more below and on the right, a
    kernel that begins with a row and a column of zeros does the same on a map with that many on all sides: 16 / 9 of
    the products of a 3x3 kernel, where a padded copy of the map takes two to six times as long as a depthwise
    convolution.

    Attributes:
        stride, dilation, groups: of the convolution.
        before: rows of zeros above the map, columns on its left.
        after: below it and on its right, as many or more; more only without dilation.
    """

    stride: tuple[int, int]
    dilation: tuple[int, int]
    groups: int
    before: tuple[int, int]
    after: tuple[int, int]

    @classmethod
    def of(cls, conv: nn.Conv2d, x: Tensor) -> Geometry:
        """That of a convolution, whose padding is no word, on maps [B, C, H, W]."""
        if isinstance(conv, SameConv2d):
            left, right, top, bottom = conv.same_padding(*x.shape[2:])
        else:
            assert not isinstance(conv.padding, str)
            (top, left) = (bottom, right) = conv.padding
        (down, across), (rows, columns) = conv.stride, conv.dilation
        return cls((down, across), (rows, columns), conv.groups, (top, left), (bottom, right))

    @property
    def is_symmetric(self) -> bool:
        """Whether as many zeros lie before the map as after it."""
        return self.before == self.after

    def widened(self, weight: Tensor) -> Tensor:
        """[O, C, k, k] -> the kernels for `after` zeros on all sides of the map."""
        if self.is_symmetric:
            return weight
        rows, columns = (after - before for before, after in zip(self.before, self.after, strict=True))
        return F.pad(weight, (columns, 0, rows, 0))


def is_misread(x: Tensor, kernel: int, stride: int, zeros: int) -> bool:
    """Whether oneDNN 3.12 would read memory that nobody wrote: in bf16, where a stride leaves one column of outputs.

    With a column of outputs more, of `stride` zeros on the right of x, it does not.

    Args:
        x: [B, C, H, W].
        kernel, stride: across.
        zeros: columns of them on either side of x.
    """
    columns = (x.shape[3] + 2 * zeros - kernel) // stride + 1
    return x.dtype == torch.bfloat16 and stride > 1 and columns == 1


def library_gradients(
    geometry: Geometry, x: Tensor, weight: Tensor, gradient: Tensor, *, to_x: bool, to_weight: bool
) -> tuple[Tensor | None, Tensor | None]:
    """PyTorch's gradients of a convolution; see `convolution_gradients`."""
    found_x, found_weight, _ = torch.ops.aten.convolution_backward(
        gradient,
        x,
        geometry.widened(weight),
        None,
        geometry.stride,
        geometry.after,
        geometry.dilation,
        False,
        [0, 0],
        geometry.groups,
        [to_x, to_weight, False],
    )
    if found_weight is not None:
        found_weight = found_weight[:, :, -weight.shape[2] :, -weight.shape[3] :]
    return found_x, found_weight
