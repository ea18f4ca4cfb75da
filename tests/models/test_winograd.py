"""Convolutions by Winograd's algorithm beside the direct sum."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn.functional import conv2d

from operation_calls import Calls
from tood.models.common import winograd
from tood.models.common.conv_norm import conv_norm
from tood.models.common.operators import fuses_convolutions
from tood.models.common.shared_conv import shared_conv
from tood.models.common.winograd import Winograd

# Of the largest exact value.
ERRORS = {2: 2e-6, 4: 1e-5}


def near(found: Tensor, exact: Tensor, error: float) -> None:
    assert found.shape == exact.shape
    assert (found - exact).abs().max() <= error * exact.abs().max()


def pyramid(shapes: list[tuple[int, int, int]], channels: int, seed: int = 0) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    maps = [torch.randn(batch, channels, height, width, generator=generator) for batch, height, width in shapes]
    return [features.contiguous(memory_format=torch.channels_last) for features in maps]


@pytest.mark.parametrize("tiles", [1, 5, winograd.TILES])  # strips of single rows, of parts of a map, of all maps
@settings(max_examples=25, deadline=None)
@given(
    shapes=st.lists(st.tuples(st.integers(1, 3), st.integers(1, 19), st.integers(1, 19)), min_size=1, max_size=3),
    size=st.sampled_from([2, 4]),
    shifts=st.booleans(),
    active=st.booleans(),
)
def test_outputs_and_gradients(
    tiles: int, shapes: list[tuple[int, int, int]], size: int, shifts: bool, active: bool
) -> None:
    maps = pyramid(shapes, 20)
    generator = torch.Generator().manual_seed(1)
    weight = torch.randn(12, 20, 3, 3, generator=generator)
    bias = torch.randn(12, generator=generator) if shifts else None
    exact_maps = [features.double().requires_grad_() for features in maps]
    exact_weight = weight.double().requires_grad_()
    exact = [conv2d(features, exact_weight, padding=1) for features in exact_maps]
    gradients = pyramid(shapes, 12, 2)
    wanted = torch.autograd.grad(exact, [exact_weight, *exact_maps], [gradient.double() for gradient in gradients])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(winograd, "TILES", tiles)
        ours = Winograd.of(weight, size)
        outs = ours(maps, bias, active)
        to_maps, to_weight = ours.gradients(maps, gradients, True, True)
        assert ours.gradients(maps, gradients, False, False) == (None, None)
    for out, sums in zip(outs, exact, strict=True):
        assert out.is_contiguous(memory_format=torch.channels_last)
        shifted = sums.detach() if bias is None else sums.detach() + bias.double()[:, None, None]
        error = ERRORS[size] * float(shifted.abs().max())
        torch.testing.assert_close(out.double(), shifted.relu() if active else shifted, rtol=0, atol=error)
    assert to_maps is not None
    assert to_weight is not None
    for found, other in zip([to_weight, *to_maps], wanted, strict=True):
        near(found, other, ERRORS[size])


def test_squares_of_four_are_computed_to_five_digits_in_wide_layers() -> None:
    (features,) = pyramid([(1, 40, 40)], 256)
    weight = torch.randn(64, 256, 3, 3) / 48
    exact = conv2d(features.double().relu(), weight.double(), padding=1)
    near(Winograd.of(weight)([features.relu()])[0], exact, 5e-6)
    near(Winograd.of(weight.double(), 2)([features.relu()])[0], exact, 1e-6)


def test_memory_does_not_grow_with_the_map() -> None:
    ours = Winograd.of(torch.randn(8, 8, 3, 3))
    sizes = [
        ours._space([features.permute(0, 2, 3, 1)], 3).numbers.numel()
        for features in pyramid([(1, 100, 100), (4, 200, 100)], 8)
    ]
    assert sizes[0] == sizes[1] or torch.get_num_threads() > 4


def wide() -> tuple[nn.Conv2d, nn.BatchNorm2d]:
    torch.manual_seed(0)
    conv, norm = nn.Conv2d(128, 130, 3, padding=1, bias=False), nn.BatchNorm2d(130).eval()
    nn.init.normal_(norm.weight)
    return conv.to(memory_format=torch.channels_last), norm  # type: ignore[call-overload]


@pytest.mark.skipif(not fuses_convolutions(torch.float32), reason="norms do not fold on this CPU")
@pytest.mark.parametrize("sums", [True, False])
def test_a_wide_convolution_and_its_norm_learn_by_winograd_s_way(sums: bool) -> None:
    conv, norm = wide()
    (x,) = pyramid([(2, 17, 18)], 128)
    added = pyramid([(2, 17, 18)], 130, 1)[0] if sums else None
    results = []
    for by_winograd in (True, False):
        inputs = x.clone().requires_grad_()
        with pytest.MonkeyPatch.context() as patch, Calls() as calls:
            patch.setattr(winograd, "LEAST_CHANNELS", 128 if by_winograd else 1000)
            out = conv_norm(conv, norm, inputs, added=added)
            results.append([out, *torch.autograd.grad(out.cos().sum(), [inputs, conv.weight, norm.weight, norm.bias])])
        assert (calls.counts["aten::bmm"] > 0) == by_winograd
        assert (calls.counts["aten::convolution_backward"] == 0) == by_winograd
    for found, wanted in zip(*results, strict=True):
        near(found, wanted, 2e-5)


def test_a_wide_convolution_of_several_maps_learns_by_winograd_s_way() -> None:
    conv = nn.Conv2d(128, 128, 3, padding=1)
    maps = [features.requires_grad_() for features in pyramid([(2, 17, 18), (2, 3, 2), (2, 1, 1)], 128)]
    parameters = [conv.weight, conv.bias, *maps]
    with Calls() as calls:
        outs = shared_conv(conv, maps)
        found = torch.autograd.grad([out.cos().sum() for out in outs], parameters)
    assert calls.counts["aten::convolution"] == 0
    assert calls.counts["aten::bmm"] == 3  # all maps at once: outputs, weights, inputs
    plain = [conv(features) for features in maps]
    wanted = torch.autograd.grad([out.cos().sum() for out in plain], parameters)
    for one, other in zip([*outs, *found], [*plain, *wanted], strict=True):
        near(one, other, 2e-5)


def test_without_gradients_and_on_few_cells_the_digits_are_the_direct_convolution_s() -> None:
    conv, norm = wide()
    large, small = pyramid([(2, 17, 18), (1, 8, 8)], 128)
    with torch.no_grad():
        assert torch.equal(shared_conv(conv, [large])[0], conv(large))
        assert torch.equal(conv_norm(conv, norm, large), norm(conv(large)).relu())
    assert torch.equal(shared_conv(conv, [small])[0], conv(small))
    with torch.autocast("cpu", torch.bfloat16):
        assert shared_conv(conv, [large])[0].dtype == torch.bfloat16
    torch.set_float32_matmul_precision("medium")  # its products would not be exact enough
    try:
        assert torch.equal(shared_conv(conv, [large])[0], conv(large))
    finally:
        torch.set_float32_matmul_precision("highest")


def test_the_matrices_may_be_made_without_gradients_and_used_with_them() -> None:
    winograd.transforms.cache_clear()
    conv, _ = wide()
    (x,) = pyramid([(2, 17, 18)], 128)
    with torch.inference_mode():
        Winograd.of(conv.weight)
    shared_conv(conv, [x.requires_grad_()])[0].sum().backward()
    assert x.grad is not None
    assert conv.weight.grad is not None
