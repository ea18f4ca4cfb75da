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
TELLS = hasattr(torch.ops.mkldnn, "_get_mkldnn_serialized_md")
GEOMETRY = ((1, 1), (1, 1), (1, 1), 1)
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
@pytest.mark.parametrize(("channels", "kernel", "groups"), [(96, 3, 1), (192, 3, 2), (1152, 1, 1), (96, 5, 96)])
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


@pytest.mark.skipif(not TELLS, reason="this PyTorch does not tell the order")
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("channels", "kernel", "stride"), [(96, 3, 1), (96, 3, 2), (192, 5, 1), (256, 1, 1)])
def test_the_library_brings_fewer_weights_in_order_at_a_call(
    dtype: torch.dtype,
    channels: int,
    kernel: int,
    stride: int,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    weight = torch.randn(channels, channels, kernel, kernel) / 30
    conv = InferenceConv2d(weight, torch.zeros(channels), stride, kernel // 2, 1, "relu6", dtype)

    def reorders(x: Tensor) -> int:
        conv(x)
        capfd.readouterr()
        with torch.backends.mkldnn.verbose(torch.backends.mkldnn.VERBOSE_ON):
            conv(x)
        told = capfd.readouterr().out
        assert ",convolution," in told
        return told.count(",reorder,")

    sizes = [maps(channels, height * stride, width * stride, dtype) for height, width in SIZES]
    ordered = [reorders(x) for x in sizes]
    monkeypatch.setattr(OrderedWeights, "wanted_for", lambda self, x, geometry: weight.to(dtype))
    plain = [reorders(x) for x in sizes]
    assert sum(ordered) < sum(plain)
    assert all(ours <= theirs for ours, theirs in zip(ordered, plain, strict=True))


@pytest.mark.skipif(not TELLS, reason="this PyTorch does not tell the order")
@pytest.mark.parametrize("dtype", DTYPES)
def test_each_order_is_kept_once_and_the_plain_one_not(dtype: torch.dtype) -> None:
    weights = OrderedWeights(torch.randn(96, 96, 3, 3).to(dtype))
    given = [weights.wanted_for(maps(96, *size, dtype), GEOMETRY) for size in SIZES]
    different = {id(weight) for weight in given}
    assert len(different) == len({order(weight) for weight in given}) <= 3
    assert {id(weight) for weight in weights._ordered.values()} == different
    assert weights._plain is None


def test_orders_beyond_all_reason_are_not_all_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weight_orders, "_wanted_order", lambda *of: (of[3][2],))
    plain = torch.randn(96, 96, 3, 3)
    weights = OrderedWeights(plain)
    for side in range(1, 9):
        assert torch.equal(weights.wanted_for(maps(96, side, 5), GEOMETRY).to_dense(), plain)
    assert list(weights._ordered) == [(5,), (6,), (7,), (8,)]


@pytest.mark.parametrize("kernel", [1, 3])
@pytest.mark.parametrize("told_first", [True, False])
def test_a_pytorch_that_does_not_tell_the_order_has_right_numbers(
    kernel: int, told_first: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    weight = torch.randn(96, 96, kernel, kernel) / 30
    conv = InferenceConv2d(weight, None, 1, kernel // 2, 1, "none", torch.float32)
    if told_first:
        conv(maps(96, 8, 8))
    with monkeypatch.context() as patch:
        patch.setattr(weight_orders, "_wanted_order", lambda *of: None)
        for size in SIZES:
            x = maps(96, *size)
            torch.testing.assert_close(conv(x), F.conv2d(x, weight, None, 1, kernel // 2), atol=1e-4, rtol=1e-4)
    x = maps(96, 7, 7)
    torch.testing.assert_close(conv(x), F.conv2d(x, weight, None, 1, kernel // 2), atol=1e-4, rtol=1e-4)


def test_no_order_is_told_without_the_operator(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.ops, "mkldnn", object())
    asked = weight_orders._wanted_order.__wrapped__
    assert asked((96, 96, 3, 3), torch.float32, GEOMETRY, (1, 96, 7, 7), 1) is None


def test_another_default_device_is_no_matter() -> None:
    weight = torch.randn(40, 40, 3, 3)
    conv = InferenceConv2d(weight, None, 1, 1, 1, "none", torch.float32)
    x = maps(40, 11, 6)
    with torch.device("meta"):
        out = conv(x)
    torch.testing.assert_close(out, F.conv2d(x, weight, None, 1, 1), atol=1e-3, rtol=1e-3)


@pytest.mark.skipif(not TELLS, reason="this PyTorch does not tell the order")
def test_a_description_laid_out_in_another_way_tells_nothing() -> None:
    weights = torch.ops.mkldnn._reorder_convolution_weight(torch.randn(96, 96, 3, 3), *GEOMETRY, [1, 96, 7, 7])
    description = torch.ops.mkldnn._get_mkldnn_serialized_md(weights).numpy().tobytes()
    assert weight_orders._order(description, (96, 96, 3, 3)) is not None
    assert weight_orders._order(description, (96, 96, 5, 5)) is None
    assert weight_orders._order(b"\0" * 8 + description, (96, 96, 3, 3)) is None
    assert weight_orders._order(description[:64], (96, 96, 3, 3)) is None
