"""Every operator beside the plain PyTorch that it stands for, in value and gradient."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from tood.ops import (
    Activation,
    SameConv2d,
    conv_norm,
    deform_conv2d,
    fused_conv,
    group_norm_relu,
    plain,
    scaled_product,
    shared_conv,
)
from tood.ops.conv_norm import plain_conv_norm
from tood.ops.deform_conv import plain_deform_conv2d
from tood.ops.scaled_product import plain_scaled_product
from tood.ops.shared_conv import plain_shared_conv

SIDES = st.integers(1, 12)


def compare(
    fast: Callable[..., Sequence[Tensor]],
    slow: Callable[..., Sequence[Tensor]],
    tensors: Sequence[Tensor],
    wanted: Sequence[bool],
    lowered: bool = False,
    error: float = 2e-5,
    parameters: Sequence[Tensor] = (),
) -> None:
    """Both on the same tensors, in bf16 by autocast where `lowered`; by the norm of what differs."""
    leaves = [tensor.detach().clone().requires_grad_(asked) for tensor, asked in zip(tensors, wanted, strict=True)]
    results = []
    for function in (fast, slow):
        with torch.autocast("cpu", torch.bfloat16) if lowered else nullcontext():
            outs = list(function(*leaves))
        learning = [leaf for leaf in (*leaves, *parameters) if leaf.requires_grad]
        total = sum((out.float() * torch.linspace(-1, 2, out.numel()).view_as(out)).sum() for out in outs)
        gradients = torch.autograd.grad(total, learning) if learning else ()  # type: ignore[arg-type]
        results.append([*(out.detach() for out in outs), *gradients])
    for one, other in zip(*results, strict=True):
        assert one.shape == other.shape
        assert one.dtype == other.dtype
        assert float((one - other).float().norm()) <= (8e-2 if lowered else error) * (float(other.float().norm()) + 1)


@settings(max_examples=60)
@given(
    shape=st.tuples(st.integers(1, 3), SIDES, SIDES),
    kernel=st.sampled_from([1, 3, 5]),
    stride=st.sampled_from([1, 2]),
    groups=st.sampled_from([1, 4]),
    options=st.tuples(*[st.booleans()] * 4),
    wanted=st.tuples(*[st.booleans()] * 5),
    seed=st.integers(0, 99),
)
def test_conv_norm(
    shape: tuple[int, int, int],
    kernel: int,
    stride: int,
    groups: int,
    options: tuple[bool, bool, bool, bool],
    wanted: tuple[bool, bool, bool, bool, bool],
    seed: int,
) -> None:
    relu, sums, lowered, last = options
    assume(not (lowered and stride == 2 and shape[2] <= 2))  # the plain one is wrong there: see the tests below
    torch.manual_seed(seed)
    conv = nn.Conv2d(16, 24, kernel, stride, kernel // 2, groups=groups, bias=False)
    norm = nn.BatchNorm2d(24).eval()
    nn.init.uniform_(norm.running_mean, -1, 1)  # type: ignore[arg-type]
    nn.init.uniform_(norm.running_var, 0.5, 2)  # type: ignore[arg-type]
    if relu:  # whole channels on either side of its kink, where rounding decides
        norm.bias = nn.Parameter(torch.tensor([6.0, -6.0]).repeat(12))
    batch, height, width = shape
    x = torch.randn(batch, 16, height, width).contiguous(
        memory_format=torch.channels_last if last else torch.contiguous_format
    )
    added = torch.randn(batch, 24, -(-height // stride), -(-width // stride))
    tensors = [x, added.bfloat16() if lowered else added][: 1 + sums]
    parameters = [conv.weight, norm.weight, norm.bias]
    for parameter, asked in zip(parameters, wanted, strict=False):
        parameter.requires_grad_(asked)

    def by(function: Callable[..., Tensor]) -> Callable[..., list[Tensor]]:
        return lambda x, added=None: [function(conv, norm, x, relu, added)]

    compare(by(conv_norm), by(plain_conv_norm), tensors, wanted[3 : 4 + sums], lowered, parameters=parameters)


@settings(max_examples=80)
@given(
    shape=st.tuples(st.integers(1, 3), SIDES, SIDES),
    kernel=st.sampled_from([3, 5]),
    stride=st.sampled_from([1, 2]),
    depthwise=st.booleans(),
    same=st.booleans(),
    activation=st.sampled_from(["none", "relu", "relu6"]),
    options=st.tuples(*[st.booleans()] * 3),
    wanted=st.tuples(*[st.booleans()] * 5),
)
def test_conv_norm_of_depthwise_layers_and_with_same_padding(
    shape: tuple[int, int, int],
    kernel: int,
    stride: int,
    depthwise: bool,
    same: bool,
    activation: Activation,
    options: tuple[bool, bool, bool],
    wanted: tuple[bool, bool, bool, bool, bool],
) -> None:
    sums, lowered, last = options
    assume(not (lowered and stride == 2 and shape[2] <= 2))  # as above
    torch.manual_seed(kernel)
    groups = 24 if depthwise else 1
    conv: nn.Conv2d = nn.Conv2d(24, 24, kernel, stride, kernel // 2, groups=groups, bias=False)
    if same:
        conv = SameConv2d(24, 24, kernel, stride, groups=groups, bias=False)
    norm = nn.BatchNorm2d(24).eval()
    nn.init.uniform_(norm.running_mean, -1, 1)  # type: ignore[arg-type]
    nn.init.uniform_(norm.running_var, 0.5, 2)  # type: ignore[arg-type]
    if activation != "none":  # whole channels below its first kink, between the two, and above the second
        norm.bias = nn.Parameter(torch.tensor([-20.0, 3.0, 20.0]).repeat(8))
        norm.weight = nn.Parameter(torch.full((24,), 0.2))
    batch, height, width = shape
    x = torch.randn(batch, 24, height, width).contiguous(
        memory_format=torch.channels_last if last else torch.contiguous_format
    )
    added = torch.randn(batch, 24, -(-height // stride), -(-width // stride)).clamp(-1, 1)
    tensors = [x, added.bfloat16() if lowered else added][: 1 + sums]
    parameters = [conv.weight, norm.weight, norm.bias]
    for parameter, asked in zip(parameters, wanted, strict=False):
        parameter.requires_grad_(asked)

    def by(function: Callable[..., Tensor]) -> Callable[..., list[Tensor]]:
        return lambda x, added=None: [function(conv, norm, x, activation, added)]

    compare(by(conv_norm), by(plain_conv_norm), tensors, wanted[3 : 4 + sums], lowered, parameters=parameters)


@pytest.mark.parametrize("same", [True, False])
@pytest.mark.parametrize("sums", [True, False])
@pytest.mark.parametrize("width", [1, 2])
def test_one_column_of_outputs_in_bf16_is_that_of_fp32(width: int, sums: bool, same: bool) -> None:
    # Of nine rows and more, oneDNN's own convolution with stride 2 gives whatever the memory held.
    torch.manual_seed(0)
    conv: nn.Conv2d = nn.Conv2d(16, 24, 3, 2, 1, bias=False)
    if same:
        conv = SameConv2d(16, 24, 3, 2, bias=False)
    norm = nn.BatchNorm2d(24).eval()
    x, added = torch.randn(2, 16, 20, width), torch.randn(2, 24, 10, 1) if sums else None
    outs = []
    for dtype in (torch.bfloat16, torch.float32):
        layer = fused_conv(conv, norm, "relu", dtype)
        used = [torch.full((64 * size,), torch.nan) for size in range(1, 99)]
        del used
        with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
            outs.append(conv_norm(conv, norm, x, "relu", None if added is None else added.to(dtype)).detach().float())
        used = [torch.full((64 * size,), torch.nan) for size in range(1, 99)]
        del used
        last = torch.channels_last
        given = None if added is None else added.to(dtype, memory_format=last, copy=True)
        with torch.inference_mode():
            outs.append(layer(x.to(dtype, memory_format=last), given).float())
    *others, exact = outs
    for out in others:
        assert float((out - exact).norm()) <= 0.02 * float(exact.norm())


@pytest.mark.parametrize("groups", [1, 4])
@pytest.mark.parametrize("kernel", [3, 5])
def test_gradients_on_a_map_of_one_column_are_those_of_fp32(kernel: int, groups: int) -> None:
    # In bf16 with stride 2 oneDNN's own gradient of the weights holds whatever the memory held.
    torch.manual_seed(0)
    conv = nn.Conv2d(16, 24, kernel, 2, kernel // 2, groups=groups, bias=False)
    norm = nn.BatchNorm2d(24).eval()
    x = torch.randn(2, 16, 5, 1)
    found = []
    for lowered in (True, False):
        used = [torch.full((24 * size,), torch.nan) for size in range(1, 60)]
        del used
        with torch.autocast("cpu", torch.bfloat16) if lowered else nullcontext():
            out = conv_norm(conv, norm, x, "none")
        found.append(torch.autograd.grad(out.float().pow(2).sum(), [conv.weight, norm.weight]))
    for one, other in zip(*found, strict=True):
        assert float((one - other).norm()) <= 0.05 * float(other.norm())


@settings(max_examples=40)
@given(
    sizes=st.lists(st.tuples(SIDES, SIDES), min_size=1, max_size=4),
    wide=st.booleans(),
    bias=st.booleans(),
    lowered=st.booleans(),
    wanted=st.booleans(),
)
def test_shared_conv(sizes: list[tuple[int, int]], wide: bool, bias: bool, lowered: bool, wanted: bool) -> None:
    torch.manual_seed(len(sizes))
    channels = 128 if wide else 8
    sizes = [*sizes, (24, 22)] if wide else sizes
    conv = nn.Conv2d(channels, channels, 3, padding=1, bias=bias)
    maps = [torch.randn(2, channels, height, width) for height, width in sizes]
    weight = conv.weight.detach()

    def by(function: Callable[..., list[Tensor]]) -> Callable[..., list[Tensor]]:
        def call(weight: Tensor, *maps: Tensor) -> list[Tensor]:
            conv._parameters["weight"] = weight  # type: ignore[assignment]
            return function(conv, maps)

        return call

    compare(by(shared_conv), by(plain_shared_conv), [weight, *maps], [wanted, *[True for _ in maps]], lowered)


@settings(max_examples=60)
@given(
    shape=st.tuples(st.integers(1, 3), st.integers(1, 20)),
    layers=st.integers(1, 4),
    channels=st.integers(1, 5),
    sizes=st.lists(st.integers(1, 6), min_size=1, max_size=3),
    lowered=st.booleans(),
    wanted=st.tuples(*[st.booleans()] * 3),
)
def test_scaled_product(
    shape: tuple[int, int],
    layers: int,
    channels: int,
    sizes: list[int],
    lowered: bool,
    wanted: tuple[bool, bool, bool],
) -> None:
    torch.manual_seed(sum(sizes))
    x = torch.randn(*shape, layers * channels)
    weight, scale = torch.randn(sum(sizes), layers * channels), torch.rand(shape[0], len(sizes), layers)
    fast = lambda *tensors: [scaled_product(*tensors, sizes)]  # noqa: E731
    slow = lambda *tensors: [plain_scaled_product(*tensors, sizes)]  # noqa: E731
    compare(fast, slow, [x, weight, scale], wanted, lowered)


@settings(max_examples=30)
@given(
    shape=st.tuples(st.integers(1, 3), SIDES, SIDES),
    stride=st.sampled_from([1, 2]),
    groups=st.sampled_from([1, 2]),
    deform_groups=st.sampled_from([1, 2, 4]),
    wanted=st.tuples(*[st.booleans()] * 4),
)
def test_deform_conv2d(
    shape: tuple[int, int, int],
    stride: int,
    groups: int,
    deform_groups: int,
    wanted: tuple[bool, bool, bool, bool],
) -> None:
    torch.manual_seed(stride)
    batch, height, width = shape
    rows, columns = -(-height // stride), -(-width // stride)
    tensors = [
        torch.randn(batch, 8, height, width),
        torch.randn(batch, deform_groups * 18, rows, columns) * 1.5,
        torch.rand(batch, deform_groups * 9, rows, columns),
        torch.randn(6, 8 // groups, 3, 3),
    ]
    fast = lambda *tensors: [deform_conv2d(*tensors, stride, groups)]  # noqa: E731
    slow = lambda *tensors: [plain_deform_conv2d(*tensors, stride, groups)]  # noqa: E731
    compare(fast, slow, tensors, wanted, error=1e-4)


def test_transforms_and_forward_derivatives_take_the_plain_way() -> None:
    torch.manual_seed(0)
    conv, norm, group = nn.Conv2d(8, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8).eval(), nn.GroupNorm(2, 8)

    def network(x: Tensor) -> Tensor:
        return group_norm_relu(group, shared_conv(conv, [conv_norm(conv, norm, x)])[0])

    x, direction = torch.randn(3, 2, 8, 6, 5), torch.randn(3, 2, 8, 6, 5)
    with plain():
        wanted = torch.stack([network(one) for one in x])
    torch.testing.assert_close(torch.func.vmap(network)(x), wanted, rtol=1e-4, atol=1e-5)
    _, slope = torch.func.jvp(network, (x[0],), (direction[0],))
    step = 1e-3
    numeric = (network(x[0] + step * direction[0]) - network(x[0] - step * direction[0])) / (2 * step)
    assert float((slope - numeric).norm()) < 0.02 * float(numeric.norm())
    gradient = torch.func.grad(lambda x: network(x).square().sum())(x[0])
    torch.testing.assert_close((gradient * direction[0]).sum(), (slope * 2 * wanted[0]).sum(), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("enabled", [True, False])
def test_a_penalty_on_gradients_is_refused_or_right(enabled: bool) -> None:
    torch.manual_seed(0)
    conv, norm = nn.Conv2d(4, 4, 3, padding=1, bias=False), nn.BatchNorm2d(4).eval()
    x = torch.randn(1, 4, 6, 6, requires_grad=True)

    def penalty() -> Tensor:
        # The seed of the inner gradient needs none itself: PyTorch's `once_differentiable` would let this pass.
        (to_x,) = torch.autograd.grad(conv_norm(conv, norm, x).sum(), x, create_graph=True)
        return to_x.square().sum() + x.sum()

    if enabled:
        with pytest.raises(RuntimeError, match=r"with tood\.ops\.plain\(\)"):
            penalty().backward()
    else:
        with plain():
            penalty().backward()
        assert conv.weight.grad is not None
        assert float(conv.weight.grad.abs().max()) > 0
