"""SAME padding, beside its definition."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from tood.ops import SameConv2d


@settings(max_examples=60)
@given(
    size=st.tuples(st.integers(1, 13), st.integers(1, 13)),
    kernel=st.sampled_from([1, 3, 5, (3, 5)]),
    stride=st.sampled_from([1, 2, 3, (2, 1)]),
    dilation=st.sampled_from([1, 2]),
)
def test_output_cells_and_where_the_zeros_lie(
    size: tuple[int, int], kernel: int | tuple[int, int], stride: int | tuple[int, int], dilation: int
) -> None:
    torch.manual_seed(0)
    conv = SameConv2d(2, 3, kernel, stride, dilation=dilation)
    sides = []
    for axis in (1, 0):
        cells = -(-size[axis] // conv.stride[axis])
        reach = (conv.kernel_size[axis] - 1) * dilation + 1
        total = max((cells - 1) * conv.stride[axis] + reach - size[axis], 0)
        sides += [total // 2, total - total // 2]
    assert list(conv.same_padding(*size)) == sides
    x = torch.randn(2, 2, *size)
    out = conv(x)
    assert list(out.shape[2:]) == [-(-size[axis] // conv.stride[axis]) for axis in (0, 1)]
    wanted = F.conv2d(F.pad(x, sides), conv.weight, conv.bias, stride, 0, dilation)
    torch.testing.assert_close(out, wanted)


def test_a_3x3_kernel_of_stride_2_begins_at_the_first_cell_of_an_even_map() -> None:
    conv = SameConv2d(1, 1, 3, 2, bias=False)
    torch.nn.init.zeros_(conv.weight).data[0, 0, 0, 0] = 1
    x = torch.arange(16.0).view(1, 1, 4, 4)
    assert conv(x).flatten().tolist() == [0, 2, 8, 10]
    assert conv(x[..., :3, :3]).flatten().tolist() == [0, 0, 0, 5]  # an odd one is padded as PyTorch's
