"""Convolutions by Winograd's algorithm beside the direct sum."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn.functional import conv2d
from torch.utils._python_dispatch import TorchDispatchMode

from operation_calls import Calls
from tood.ops import winograd
from tood.ops.arithmetic import fuses_convolutions
from tood.ops.conv_norm import conv_norm
from tood.ops.shared_conv import shared_conv
from tood.ops.winograd import Winograd

# Of the largest exact value.
ERRORS = {2: 2e-6, 4: 1e-5}


class Largest(TorchDispatchMode):
    """The largest memory that is taken other than that of a map of so many numbers or more."""

    def __init__(self, of_map: int) -> None:
        super().__init__()
        self.of_map, self.numbers = of_map, 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = function(*args, **(kwargs or {}))
        if "empty" in str(function) and out.numel() < self.of_map:
            self.numbers = max(self.numbers, out.numel())
        return out


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
        outs = ours(maps, bias, relu=active)
        to_maps, to_weight = ours.gradients(maps, gradients, to_maps=True, to_weight=True)
        assert ours.gradients(maps, gradients, to_maps=False, to_weight=False) == (None, None)
    for out, sums in zip(outs, exact, strict=True):
        assert out.is_contiguous(memory_format=torch.channels_last)
        shifted = sums.detach() if bias is None else sums.detach() + bias.double()[:, None, None]
        error = ERRORS[size] * float(shifted.abs().max())
        torch.testing.assert_close(out.double(), shifted.relu() if active else shifted, rtol=0, atol=error)
    assert to_maps is not None
    assert to_weight is not None
    for found, other in zip([to_weight, *to_maps], wanted, strict=True):
        near(found, other, ERRORS[size])


@pytest.mark.parametrize("shape", [(1, 16, 20), (2, 17, 21), (3, 7, 9), (1, 1, 300), (1, 300, 1), (2, 2, 2)])
@pytest.mark.parametrize("bias", [True, False])
def test_squares_of_two_are_as_exact_as_the_direct_sum(shape: tuple[int, int, int], bias: bool) -> None:
    batch, height, width = shape
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(batch, 130, height, width, generator=generator).contiguous(memory_format=torch.channels_last)
    weight = torch.randn(140, 130, 3, 3, generator=generator) / 34
    shift = torch.randn(140, generator=generator) if bias else None
    exact = conv2d(x.double(), weight.double(), None if shift is None else shift.double(), padding=1)
    direct = conv2d(x, weight, shift, padding=1)
    for relu in (False, True):
        wanted = exact.relu() if relu else exact
        with torch.inference_mode():
            (found,) = Winograd.of(weight.double(), 2)([x], shift, relu=relu)
        assert found.is_contiguous(memory_format=torch.channels_last)
        error = (found - wanted).abs().max()
        assert error < max(3 * float((direct - exact).abs().max()), 2e-6)


def test_squares_of_four_are_computed_to_five_digits_in_wide_layers() -> None:
    (features,) = pyramid([(1, 40, 40)], 256)
    weight = torch.randn(64, 256, 3, 3) / 48
    exact = conv2d(features.double().relu(), weight.double(), padding=1)
    near(Winograd.of(weight)([features.relu()])[0], exact, 5e-6)
    near(Winograd.of(weight.double(), 2)([features.relu()])[0], exact, 1e-6)


def test_extra_memory_does_not_grow_with_the_map(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(winograd, "MOST_TILES", 64)
    ours = Winograd.of(torch.randn(8, 8, 3, 3))
    largest = []
    for features in pyramid([(1, 100, 100), (2, 300, 100)], 8):
        with Largest(features.numel()) as seen:
            ours([features])
        largest.append(seen.numbers)
    assert largest == [36 * 64 * 8] * 2


def test_maps_without_a_cell() -> None:
    ours = Winograd.of(torch.randn(4, 8, 3, 3))
    for shape in ((0, 8, 5, 5), (2, 8, 0, 5)):
        assert ours([torch.zeros(shape)])[0].shape == (shape[0], 4, *shape[2:])


@pytest.mark.parametrize("strips", [1, 9])
def test_gradients_asked_for_within_autocast_are_fp32_s(monkeypatch: pytest.MonkeyPatch, strips: int) -> None:
    monkeypatch.setattr(winograd, "MOST_TILES", winograd.MOST_TILES if strips == 1 else 5)
    conv, norm = wide()
    (x,) = pyramid([(2, 17, 18)], 128)
    found = []
    for lowered in (False, True):
        inputs = x.clone().requires_grad_()
        loss = conv_norm(conv, norm, shared_conv(conv, [inputs])[0][:, :128]).square().mean()
        with torch.autocast("cpu", torch.bfloat16, enabled=lowered):
            found.append(torch.autograd.grad(loss, [inputs, conv.weight]))
    for one, other in zip(*found, strict=True):
        assert torch.equal(one, other)


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


def test_where_products_are_not_exact_the_direct_convolution_is_taken() -> None:
    conv, _ = wide()
    (large,) = pyramid([(2, 17, 18)], 128)
    torch.set_float32_matmul_precision("medium")
    try:
        assert torch.equal(shared_conv(conv, [large])[0], conv(large))
    finally:
        torch.set_float32_matmul_precision("highest")


def test_another_device_s_precision_is_none_of_its_business() -> None:
    script = """
        import torch
        torch.backends.cuda.matmul.fp32_precision = "tf32"
        from tood.ops.winograd import is_wide
        assert is_wide(torch.zeros(128, 128, 3, 3))
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(script)], check=True)


def test_the_matrices_may_be_made_without_gradients_and_used_with_them() -> None:
    winograd._matrices.cache_clear()
    conv, _ = wide()
    (x,) = pyramid([(2, 17, 18)], 128)
    with torch.inference_mode():
        Winograd.of(conv.weight)
    shared_conv(conv, [x.requires_grad_()])[0].sum().backward()
    assert x.grad is not None
    assert conv.weight.grad is not None
