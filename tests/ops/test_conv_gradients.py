"""Gradients of convolutions as matrix products, beside PyTorch's."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from operation_calls import Calls
from tood.ops.conv_gradients import SMALL, convolution_gradients

KINDS = {
    "1x1": ((16, 24, 1), {}, (2, 9, 7)),
    "1x1 of stride 2": ((16, 24, 1), {"stride": 2}, (2, 9, 7)),
    "1x1 of groups": ((16, 24, 1), {"groups": 4}, (2, 9, 7)),
    "padded 1x1": ((16, 24, 1), {"padding": 1}, (2, 9, 7)),
    "small 3x3": ((16, 24, 3), {"padding": 1}, (2, 9, 7)),
    "small 3x3 of stride 2": ((16, 24, 3), {"stride": 2, "padding": 1}, (2, 10, 7)),
    "large 3x3": ((16, 24, 3), {"padding": 1}, (2, 20, 21)),
    "dilated 3x3": ((16, 24, 3), {"padding": 1, "dilation": 2}, (2, 9, 7)),
    "3x3 of groups": ((16, 24, 3), {"padding": 1, "groups": 4}, (2, 9, 7)),
    "5x5": ((16, 24, 5), {"padding": 2}, (2, 9, 7)),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("layout", [torch.channels_last, torch.contiguous_format])
def test_gradients(kind: str, layout: torch.memory_format) -> None:
    torch.manual_seed(0)
    (channels, outputs, kernel), options, (batch, height, width) = KINDS[kind]
    conv = nn.Conv2d(channels, outputs, kernel, bias=False, **options).double()  # type: ignore[arg-type]
    x = torch.randn(batch, channels, height, width, dtype=torch.float64).contiguous(memory_format=layout)
    out = conv(x.requires_grad_())
    gradient = torch.randn_like(out).contiguous(memory_format=layout)
    wanted = torch.autograd.grad(out, [x, conv.weight], gradient)
    x, weight = x.detach(), conv.weight.detach()
    for found, other in zip(
        convolution_gradients(conv, x, weight, gradient, to_x=True, to_weight=True), wanted, strict=True
    ):
        assert found is not None
        torch.testing.assert_close(found, other)
    alone = [
        convolution_gradients(conv, x, weight, gradient, to_x=asked, to_weight=not asked) for asked in (True, False)
    ]
    assert alone[0][1] is None
    assert alone[1][0] is None
    for found, other in zip((alone[0][0], alone[1][1]), wanted, strict=True):
        assert found is not None
        torch.testing.assert_close(found, other)


@pytest.mark.parametrize(("kind", "asked"), [("1x1", 0), ("1x1 of stride 2", 0), ("small 3x3", 1), ("large 3x3", 1)])
def test_products_stand_for_gradients_of_the_library(kind: str, asked: int) -> None:
    (channels, outputs, kernel), options, (batch, height, width) = KINDS[kind]
    conv = nn.Conv2d(channels, outputs, kernel, bias=False, **options)  # type: ignore[arg-type]
    x = torch.randn(batch, channels, height, width)
    gradient = torch.randn_like(conv(x))
    with torch.no_grad(), Calls() as calls:
        convolution_gradients(conv, x, conv.weight, gradient, to_x=True, to_weight=True)
    assert calls.counts["aten::convolution_backward"] == asked
    is_product = kernel == 1 or gradient[:, 0].numel() <= SMALL
    assert (calls.counts["aten::mm"] > 0) == is_product
