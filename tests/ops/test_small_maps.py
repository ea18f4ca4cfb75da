"""Convolutions for inference on maps of few cells, whose weights want another order than those of large ones."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from tood.ops.inference import SMALL_MAP, InferenceConv2d


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("activation", ["none", "relu", "relu6"])
def test_small_and_large_maps_in_turn_give_the_plain_convolution(stride: int, activation: str) -> None:
    generator = torch.Generator().manual_seed(0)
    weight, bias = torch.randn(96, 96, 3, 3, generator=generator) / 30, torch.randn(96, generator=generator)
    conv = InferenceConv2d(weight, bias, stride, 1, 1, activation, torch.float32)  # type: ignore[arg-type]
    for height, width in ((40, 40), (7, 7), (1, 1), (9, 9), (10, 9), (5, 16), (3, 60), (40, 40), (2, 3)):
        x = torch.randn(2, 96, height * stride, width * stride, generator=generator)
        x = x.to(memory_format=torch.channels_last)
        expected = F.conv2d(x, weight, bias, stride, 1)
        expected = expected if activation == "none" else expected.relu()
        expected = expected.clamp(max=6) if activation == "relu6" else expected
        torch.testing.assert_close(conv(x), expected, atol=1e-4, rtol=1e-4)
        added = torch.randn(expected.shape, generator=generator).to(memory_format=torch.channels_last)
        if activation == "none":
            torch.testing.assert_close(conv(x, added.clone()), expected + added, atol=1e-4, rtol=1e-4)


def test_only_small_maps_have_weights_of_their_own() -> None:
    conv = InferenceConv2d(torch.randn(96, 96, 3, 3), None, 1, 1, 1, "none", torch.float32)
    if conv.packed is None:
        pytest.skip("no oneDNN here")
    side = int(SMALL_MAP**0.5)
    conv(torch.randn(1, 96, side + 1, side + 1).to(memory_format=torch.channels_last))
    assert conv.packed_for_small is None
    conv(torch.randn(1, 96, side, side).to(memory_format=torch.channels_last))
    assert conv.packed_for_small is not None
    half = InferenceConv2d(torch.randn(96, 96, 3, 3), None, 1, 1, 1, "none", torch.bfloat16)
    half(torch.randn(1, 96, side, side).bfloat16().to(memory_format=torch.channels_last))
    assert half.packed_for_small is None
