"""Operations with gradients of their own, beside the plain ones that they stand for."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import relu

from narrow_models import FREE, lively
from operation_calls import Calls
from tood.models import build_model
from tood.ops.arithmetic import fuses_convolutions
from tood.ops.conv_gradients import SMALL
from tood.ops.conv_norm import conv_norm
from tood.ops.scaled_product import scaled_product
from tood.ops.shared_conv import shared_conv


def layers(stride: int = 1, groups: int = 1, kernel: int = 3) -> tuple[nn.Conv2d, nn.BatchNorm2d]:
    """A convolution of 32 channels to 48 and a norm that has seen data."""
    torch.manual_seed(stride + groups)
    conv = nn.Conv2d(32, 48, kernel, stride, kernel // 2, groups=groups, bias=False)
    norm = nn.BatchNorm2d(48).eval()
    with torch.no_grad():
        norm.running_mean.normal_()  # type: ignore[union-attr]
        norm.running_var.uniform_(0.5, 2)  # type: ignore[union-attr]
        norm.weight.uniform_(-1, 2)
        norm.bias.normal_()
    return conv.to(memory_format=torch.channels_last), norm  # type: ignore[call-overload]


def plain(conv: nn.Conv2d, norm: nn.BatchNorm2d, x: Tensor, active: bool, added: Tensor | None) -> Tensor:
    """What `conv_norm` stands for."""
    out: Tensor = norm(conv(x))
    out = out if added is None else out + added
    return relu(out) if active else out


def gradients(
    function: Callable[[Tensor, Tensor | None], Tensor], inputs: list[Tensor], parameters: list[Tensor]
) -> list[Tensor]:
    """The output, and gradients of a weighted sum of it."""
    x, *added = [tensor.clone().requires_grad_() for tensor in inputs]
    out = function(x, added[0] if added else None)
    weights = torch.linspace(-1, 1, out.numel()).view_as(out)
    return [out.detach(), *torch.autograd.grad((out * weights).sum(), [x, *added, *parameters])]


@pytest.mark.parametrize("active", [True, False])
@pytest.mark.parametrize("sums", [True, False])
@pytest.mark.parametrize(("stride", "groups", "kernel"), [(1, 1, 3), (2, 1, 3), (2, 4, 3), (1, 1, 1), (2, 1, 1)])
def test_a_norm_that_keeps_its_statistics_folds_into_its_convolution(
    stride: int, groups: int, kernel: int, sums: bool, active: bool
) -> None:
    conv, norm = layers(stride, groups, kernel)
    inputs = [torch.randn(2, 32, 9, 7), *([torch.randn(2, 48, -(-9 // stride), -(-7 // stride))] if sums else [])]
    parameters: list[Tensor] = [conv.weight, norm.weight, norm.bias]
    ours = gradients(lambda x, added: conv_norm(conv, norm, x, active, added), inputs, parameters)
    theirs = gradients(lambda x, added: plain(conv, norm, x, active, added), inputs, parameters)
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5 * float(other.abs().max()))


def test_the_folded_norm_in_bf16_is_as_near_to_fp32_as_the_plain_one() -> None:
    conv, norm = layers()
    inputs = [torch.randn(2, 32, 24, 24), torch.randn(2, 48, 24, 24)]
    parameters: list[Tensor] = [conv.weight, norm.weight, norm.bias]

    def lowered(function: Callable[..., Tensor]) -> list[Tensor]:
        def call(x: Tensor, added: Tensor | None) -> Tensor:
            with torch.autocast("cpu", torch.bfloat16):
                return function(conv, norm, x, True, added).float()

        return gradients(call, inputs, parameters)

    exact = gradients(lambda x, added: plain(conv, norm, x, True, added), inputs, parameters)
    for ours, theirs, true in zip(lowered(conv_norm), lowered(plain), exact, strict=True):
        assert (ours - true).norm() < 1.5 * (theirs - true).norm() + 1e-3 * true.norm()


def test_a_folded_norm_keeps_one_map_less() -> None:
    conv, norm = layers()
    x = torch.randn(2, 32, 16, 16).requires_grad_()

    def kept(function: Callable[..., Tensor]) -> int:
        sizes = []
        with torch.autograd.graph.saved_tensors_hooks(
            lambda tensor: sizes.append(tensor.numel()) or tensor, lambda t: t
        ):  # type: ignore[func-returns-value]
            function(conv, norm, x, True, None)
        return sum(size >= x.numel() for size in sizes)

    assert kept(conv_norm) == 2  # what came in, what goes out
    assert kept(plain) > 2


def test_a_norm_that_learns_its_statistics_is_left_alone() -> None:
    conv, norm = layers()
    other_conv, other = layers()
    norm.train()
    other.train()
    x = torch.randn(2, 32, 8, 8)
    out = conv_norm(conv, norm, x)
    torch.testing.assert_close(out, plain(other_conv, other, x, True, None))
    torch.testing.assert_close(norm.running_mean, other.running_mean)


def test_the_folded_norm_in_bf16_and_ordinary_memory() -> None:
    conv, norm = layers()
    x, added = torch.randn(2, 32, 8, 8), torch.randn(2, 48, 8, 8)
    with torch.autocast("cpu", torch.bfloat16):
        out = conv_norm(conv.to(memory_format=torch.contiguous_format), norm, x, added=added)  # type: ignore[call-overload]
    out.float().sum().backward()
    torch.testing.assert_close(out.float(), plain(conv, norm, x, True, added), rtol=0.05, atol=0.05)


def test_with_and_without_gradients_the_output_is_the_same_in_bf16() -> None:
    # Exact accumulation finds the sums that it divides by without gradients.
    conv, norm = layers()
    x = torch.randn(2, 32, 8, 8)
    with torch.autocast("cpu", torch.bfloat16):
        with torch.no_grad():
            without = conv_norm(conv, norm, x)
        assert torch.equal(conv_norm(conv, norm, x), without)


@pytest.mark.parametrize("change", ["bias", "reflect", "affine", "hook"])
def test_convolutions_and_norms_of_other_kinds_are_called_as_they_are(change: str) -> None:
    conv, norm = layers()
    called = []
    if change == "bias":
        conv.bias = nn.Parameter(torch.ones(48))
    elif change == "reflect":
        conv.padding_mode = "reflect"
        conv._reversed_padding_repeated_twice = [1, 1, 1, 1]
    elif change == "affine":
        norm = nn.BatchNorm2d(48, affine=False).eval()
    else:
        conv.register_forward_hook(lambda *_: called.append(True))
    x = torch.randn(2, 32, 8, 8)
    torch.testing.assert_close(conv_norm(conv, norm, x), plain(conv, norm, x, True, None))
    assert len(called) == 2 * (change == "hook")


def test_a_frozen_convolution_gets_no_gradient() -> None:
    conv, norm = layers()
    conv.requires_grad_(False)
    norm.requires_grad_(False)
    assert not conv_norm(conv, norm, torch.randn(1, 32, 4, 4)).requires_grad
    x = torch.randn(1, 32, 4, 4, requires_grad=True)
    conv_norm(conv, norm, x).sum().backward()
    assert x.grad is not None
    assert conv.weight.grad is None


def test_a_convolution_of_several_maps() -> None:
    torch.manual_seed(0)
    conv = nn.Conv2d(8, 16, 3, padding=1, bias=False).double()
    sizes = [(2, 8, 20, 24), (2, 8, 10, 12), (2, 8, 5, 6), (2, 8, 3, 1), (2, 8, 1, 1)]
    assert sum(2 * height * width <= SMALL for _, _, height, width in sizes) == 4
    maps = [torch.randn(size, dtype=torch.float64, requires_grad=True) for size in sizes]

    def derivatives(outs: list[Tensor]) -> list[Tensor]:
        return list(torch.autograd.grad(sum((out * out.cos()).sum() for out in outs), [conv.weight, *maps]))  # type: ignore[arg-type]

    outs, plain = shared_conv(conv, maps), [conv(features) for features in maps]
    for one, other in zip([*outs, *derivatives(outs)], [*plain, *derivatives(plain)], strict=True):
        torch.testing.assert_close(one, other)


def test_a_convolution_of_several_maps_that_do_not_learn() -> None:
    conv = nn.Conv2d(8, 16, 3, padding=1, bias=False)
    maps = [torch.randn(1, 8, size, size) for size in (30, 2)]
    sum(out.sum() for out in shared_conv(conv, maps)).backward()  # type: ignore[union-attr]
    assert conv.weight.grad is not None
    conv.requires_grad_(False)
    assert not any(out.requires_grad for out in shared_conv(conv, maps))
    maps[0].requires_grad_()
    sum(out.sum() for out in shared_conv(conv, maps)).backward()  # type: ignore[union-attr]
    assert maps[0].grad is not None


@pytest.mark.parametrize("rows", [2, 5])  # the rows are the fewer ones, or the weights
def test_scaled_product(rows: int) -> None:
    torch.manual_seed(0)
    sizes = [4, 3]
    x, weight, scale = torch.randn(2, rows, 12), torch.randn(7, 12), torch.rand(2, 2, 3)
    each = weight.view(7, 3, 4) * scale.repeat_interleave(torch.tensor(sizes), dim=1)[..., None]  # [2, 7, 3, 4]
    product = lambda *inputs: scaled_product(*inputs, sizes)  # noqa: E731
    torch.testing.assert_close(product(x, weight, scale), torch.einsum("bplc,bolc->bpo", x.view(2, rows, 3, 4), each))
    inputs = [tensor.double().requires_grad_() for tensor in (x, weight, scale)]
    assert torch.autograd.gradcheck(product, inputs)


@pytest.mark.parametrize("rows", [3, 50])
def test_scaled_product_under_autocast(rows: int) -> None:
    torch.manual_seed(0)
    x, weight, scale = torch.randn(2, rows, 96), torch.randn(7, 96, requires_grad=True), torch.rand(2, 2, 3)
    with torch.autocast("cpu", torch.bfloat16):
        out = scaled_product(x, weight, scale, [4, 3])
    assert out.dtype == torch.bfloat16
    torch.testing.assert_close(out.float(), scaled_product(x, weight, scale, [4, 3]), rtol=0.02, atol=0.2)
    out.sum().backward()
    assert weight.grad is not None
    assert weight.grad.dtype == torch.float32


@pytest.mark.skipif(not fuses_convolutions(torch.float32), reason="norms do not fold on this CPU")
def test_no_norm_is_a_pass_of_its_own_in_a_step() -> None:
    torch.manual_seed(0)
    model = lively(build_model(FREE)).train()
    with Calls() as calls:
        found = model(torch.randn(2, 3, 160, 224))
        (found.scores.sum() + found.boxes.sum()).backward()
    # Of 8 channels, the shortcut of the first block is a projection of its own (`_NarrowProjection`).
    assert sum(count for name, count in calls.counts.items() if "batch_norm" in name) == 1
