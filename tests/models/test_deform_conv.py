from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from tood.models.common.deform_conv import DeformConv2d, deform_conv2d


def slow(x: Tensor, offsets: Tensor, masks: Tensor, weight: Tensor, stride: int, groups: int) -> Tensor:
    """The definition, one output value at a time."""
    batch, channels, height, width = x.shape
    outputs, per_group = weight.shape[:2]
    deform_groups = masks.shape[1] // 9
    out = x.new_zeros(batch, outputs, *offsets.shape[2:])
    for b in range(batch):
        for o in range(outputs):
            for i in range(out.shape[2]):
                for j in range(out.shape[3]):
                    for c in range(per_group):
                        channel = o // (outputs // groups) * per_group + c
                        group = channel // (channels // deform_groups)
                        for k in range(9):
                            point = group * 9 + k
                            y = i * stride - 1 + k // 3 + offsets[b, 2 * point, i, j]
                            z = j * stride - 1 + k % 3 + offsets[b, 2 * point + 1, i, j]
                            top, left = math.floor(y.item()), math.floor(z.item())
                            for row, column in ((top, left), (top, left + 1), (top + 1, left), (top + 1, left + 1)):
                                if 0 <= row < height and 0 <= column < width:
                                    share = (1 - (y - row).abs()) * (1 - (z - column).abs())
                                    value = x[b, channel, row, column] * masks[b, point, i, j]
                                    out[b, o, i, j] += share * value * weight[o, c, k // 3, k % 3]
    return out


@pytest.mark.parametrize(("stride", "groups", "deform_groups"), [(1, 1, 1), (2, 1, 2), (1, 2, 4)])
def test_it_is_the_definition_in_value_and_gradient(stride: int, groups: int, deform_groups: int) -> None:
    generator = torch.Generator().manual_seed(0)
    height, width = 4, 3
    shape = (-(-height // stride), -(-width // stride))

    def random(*shape: int, scale: float = 1.0) -> Tensor:
        return (torch.randn(*shape, generator=generator, dtype=torch.float64) * scale).requires_grad_()

    inputs = (
        random(1, 4, height, width),
        random(1, deform_groups * 18, *shape, scale=1.5),
        random(1, deform_groups * 9, *shape),
        random(4, 4 // groups, 3, 3),
    )
    given, wanted = deform_conv2d(*inputs, stride, groups), slow(*inputs, stride, groups)
    torch.testing.assert_close(given, wanted)
    seed = torch.randn(given.shape, generator=generator, dtype=torch.float64)
    gradients, wanted_gradients = (torch.autograd.grad(out, inputs, seed) for out in (given, wanted))
    for ours, theirs in zip(gradients, wanted_gradients, strict=True):
        torch.testing.assert_close(ours, theirs)
    assert torch.autograd.gradcheck(lambda *tensors: deform_conv2d(*tensors, stride, groups), inputs, fast_mode=True)


@pytest.mark.parametrize("stride", [1, 2])
def test_it_starts_as_half_the_plain_convolution(stride: int) -> None:
    layer = DeformConv2d(6, 4, stride=stride, deform_groups=2)
    x = torch.randn(2, 6, 9, 7)
    plain = nn.functional.conv2d(x, layer.weight, stride=stride, padding=1)
    torch.testing.assert_close(layer(x), plain / 2, rtol=1e-4, atol=1e-5)
