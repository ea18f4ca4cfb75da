"""Weights in the orders that oneDNN wants for the maps that come."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from tood.ops import weight_orders
from tood.ops.activation import Activation
from tood.ops.arithmetic import fuses_convolutions
from tood.ops.inference import InferenceConv2d
from tood.ops.weight_orders import OrderedWeights

DTYPES = [dtype for dtype in (torch.float32, torch.bfloat16) if fuses_convolutions(dtype)]
pytestmark = pytest.mark.skipif(not DTYPES, reason="no oneDNN here")
ZEROS = (1, 1)
# Outputs whose weights oneDNN wants in different orders for many widths, on many CPUs.
SIZES = ((40, 40), (7, 7), (1, 1), (9, 9), (10, 9), (5, 16), (13, 13), (3, 60), (40, 40), (2, 3))


def maps(channels: int, height: int, width: int, dtype: torch.dtype = torch.float32) -> Tensor:
    x = torch.randn(2, channels, height, width, generator=torch.Generator().manual_seed(height))
    return x.to(dtype, memory_format=torch.channels_last)


def order(weights: Tensor) -> weight_orders.Order | None:
    description = torch.ops.mkldnn._get_mkldnn_serialized_md(weights).numpy().tobytes()
    return weight_orders._order(description, tuple(weights.shape))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("activation", ["none", "relu", "relu6"])
@pytest.mark.parametrize(("channels", "kernel", "groups"), [(96, 3, 1), (192, 3, 1), (192, 1, 1), (96, 5, 96)])
def test_maps_of_all_sizes_in_turn_give_the_plain_convolution(
    dtype: torch.dtype, stride: int, activation: Activation, channels: int, kernel: int, groups: int
) -> None:
    generator = torch.Generator().manual_seed(0)
    shape = (channels, channels // groups, kernel, kernel)
    weight, bias = torch.randn(shape, generator=generator), torch.randn(channels, generator=generator)
    weight = (weight / weight[0].numel() ** 0.5).to(dtype).float()
    conv = InferenceConv2d(weight, bias, stride, kernel // 2, groups, activation, dtype)
    error = {"atol": 1e-4, "rtol": 1e-4} if dtype == torch.float32 else {"atol": 0.05, "rtol": 0.02}
    for height, width in SIZES:
        x = maps(channels, height * stride, width * stride, dtype)
        expected = F.conv2d(x.float(), weight, bias, stride, kernel // 2, 1, groups)
        expected = expected if activation == "none" else expected.relu()
        expected = expected.clamp(max=6) if activation == "relu6" else expected
        torch.testing.assert_close(conv(x).float(), expected, **error)
        if activation == "none":
            added = maps(channels, *expected.shape[2:], dtype)
            torch.testing.assert_close(conv(x, added.clone()).float(), expected + added.float(), **error)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("channels", [64, 96, 192])
def test_weights_lie_as_the_library_wants_them(dtype: torch.dtype, channels: int) -> None:
    plain = torch.randn(channels, channels, 3, 3).to(dtype)
    weights = OrderedWeights(plain, 1, 1)
    for height, width in SIZES:
        x = maps(channels, height, width, dtype)
        geometry = (ZEROS, (1, 1), (1, 1), 1)
        wanted = torch.ops.mkldnn._reorder_convolution_weight(plain, *geometry, list(x.shape))
        given = weights.wanted_for(x, ZEROS)
        assert order(given) is not None
        assert order(given) == order(wanted)
        assert torch.equal(given.to_dense(), plain)


@pytest.mark.parametrize("dtype", DTYPES)
def test_each_order_is_kept_once_and_the_plain_one_not(dtype: torch.dtype) -> None:
    weights = OrderedWeights(torch.randn(96, 96, 3, 3).to(dtype), 1, 1)
    given = [weights.wanted_for(maps(96, *size, dtype), ZEROS) for size in SIZES]
    different = {id(weight) for weight in given}
    assert len(different) == len({order(weight) for weight in given}) <= 3
    assert {id(weight) for weight in weights._weights.values()} == different


def test_a_pytorch_that_does_not_tell_the_order_has_plain_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    weight_orders._wanted_order.cache_clear()
    monkeypatch.setattr(weight_orders, "_order", lambda description, weight: None)
    weight = torch.randn(96, 96, 3, 3) / 30
    conv = InferenceConv2d(weight, None, 1, 1, 1, "none", torch.float32)
    for size in SIZES:
        x = maps(96, *size)
        torch.testing.assert_close(conv(x), F.conv2d(x, weight, None, 1, 1), atol=1e-4, rtol=1e-4)
    assert conv.ordered is not None
    assert not conv.ordered.wanted_for(x, ZEROS).is_mkldnn
    weight_orders._wanted_order.cache_clear()


def test_a_description_laid_out_in_another_way_tells_nothing() -> None:
    weights = torch.ops.mkldnn._reorder_convolution_weight(
        torch.randn(96, 96, 3, 3), ZEROS, (1, 1), (1, 1), 1, [1, 96, 7, 7]
    )
    description = torch.ops.mkldnn._get_mkldnn_serialized_md(weights).numpy().tobytes()
    assert weight_orders._order(description, (96, 96, 3, 3)) is not None
    assert weight_orders._order(description, (96, 96, 5, 5)) is None
    assert weight_orders._order(b"\0" * 8 + description, (96, 96, 3, 3)) is None
    assert weight_orders._order(description[:64], (96, 96, 3, 3)) is None
