"""Convolutions that only predict, beside the layers that they are made of."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from tood.models.common.deform_conv import fused
from tood.ops import Activation, CannotFuse, SameConv2d
from tood.ops.arithmetic import fuses_convolutions
from tood.ops.conv_norm import plain_conv_norm

LOWERED = [torch.float32, *([torch.bfloat16] if fuses_convolutions(torch.bfloat16) else [])]


@settings(max_examples=80)
@given(
    size=st.tuples(st.integers(1, 3), st.integers(1, 12), st.integers(1, 12)),
    kernel=st.sampled_from([1, 2, 3, 5]),
    stride=st.sampled_from([1, 2]),
    same=st.booleans(),
    groups=st.sampled_from([1, 8, 24]),
    activation=st.sampled_from(["none", "relu", "relu6"]),
    sums=st.booleans(),
    dtype=st.sampled_from(LOWERED),
    library=st.booleans(),
)
def test_a_fused_layer(
    size: tuple[int, int, int],
    kernel: int,
    stride: int,
    same: bool,
    groups: int,
    activation: Activation,
    sums: bool,
    dtype: torch.dtype,
    library: bool,
) -> None:
    torch.manual_seed(0)
    conv: nn.Conv2d = nn.Conv2d(24, 24, kernel, stride, (kernel - 1) // 2, groups=groups, bias=False)
    if same:
        conv = SameConv2d(24, 24, kernel, stride, groups=groups, bias=False)
    norm = nn.BatchNorm2d(24).eval()
    norm.bias = nn.Parameter(torch.tensor([-4.0, 2.0, 8.0]).repeat(8))
    x = torch.randn(size[0], 24, *size[1:])
    if not same and min(size[1:]) + 2 * conv.padding[0] < kernel:  # type: ignore[operator]
        return
    with torch.inference_mode(), torch.backends.mkldnn.flags(enabled=library):
        shape = conv(x).shape
        added = torch.randn(shape) if sums else None
        wanted = plain_conv_norm(conv, norm, x, activation, added)
        layer = fused(conv, norm, activation, dtype)
        last = torch.channels_last
        lowered = None if added is None else added.to(dtype, memory_format=last, copy=True)
        out = layer(x.to(dtype, memory_format=last), lowered)  # type: ignore[arg-type]
    assert out.dtype == dtype
    assert out.shape == wanted.shape
    assert float((out - wanted).norm()) <= (2e-2 if dtype == torch.bfloat16 else 1e-5) * float(wanted.norm()) + 1e-6


@pytest.mark.parametrize(
    "conv",
    [
        SameConv2d(4, 4, (3, 5), 2, bias=False),
        SameConv2d(4, 4, 2, 3, bias=False),
        SameConv2d(4, 4, 3, 2, dilation=2, bias=False),
        nn.Conv2d(4, 4, 3, padding=(1, 2), bias=False),
    ],
)
def test_geometries_that_have_no_copy(conv: nn.Conv2d) -> None:
    with pytest.raises(CannotFuse):
        fused(conv, nn.BatchNorm2d(4).eval(), "relu6", torch.float32)


def test_a_class_of_ones_own_has_no_copy() -> None:
    class Doubled(SameConv2d):
        def forward(self, input: torch.Tensor) -> torch.Tensor:
            return 2 * super().forward(input)

    with pytest.raises(CannotFuse, match="a Doubled where a SameConv2d was built"):
        fused(Doubled(4, 4, 3, 2, bias=False), nn.BatchNorm2d(4).eval(), "relu6", torch.float32)
