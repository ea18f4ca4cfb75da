"""Depthwise convolutions' gradients, beside PyTorch's."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from tood.ops import SameConv2d, conv_norm
from tood.ops.arithmetic import fuses_convolutions
from tood.ops.conv_gradients import convolution_gradients
from tood.ops.conv_norm import plain_conv_norm
from tood.ops.depthwise import AT_ONCE, COLUMNS, is_depthwise

KERNELS = st.sampled_from([1, 2, 3, 4, 5, 7, (3, 5), (5, 2)])
STRIDES = st.sampled_from([1, 2, 3, (2, 1)])
SIZES = st.tuples(st.integers(1, 3), st.integers(1, 11), st.integers(1, 11))


def layer(kernel: Any, stride: Any, same: bool, channels: int = 6, more: int = 0) -> nn.Conv2d:
    """With SAME padding, or that of PyTorch's networks and `more`."""
    torch.manual_seed(0)
    if same:
        return SameConv2d(channels, channels, kernel, stride, groups=channels, bias=False)
    sides = kernel if isinstance(kernel, tuple) else (kernel, kernel)
    padding = (sides[0] // 2 + more, sides[1] // 2 + more)
    return nn.Conv2d(channels, channels, kernel, stride, padding, groups=channels, bias=False)


def cells(conv: nn.Conv2d, size: tuple[int, int, int]) -> Tensor:
    return torch.randn(size[0], conv.in_channels, *size[1:])


def poison(like: Tensor) -> None:
    """Leaves NaNs in memory of the sizes that the next tensors will have."""
    used = [torch.full((like.numel() * size // 8,), torch.nan) for size in range(1, 24)]
    del used


@settings(max_examples=120)
@given(
    size=SIZES,
    kernel=KERNELS,
    stride=STRIDES,
    same=st.booleans(),
    wanted=st.sampled_from([(True, True), (True, False), (False, True), (False, False)]),
    last=st.booleans(),
    more=st.sampled_from([0, 0, 1, 4]),
)
def test_gradients_in_fp64(
    size: tuple[int, int, int], kernel: Any, stride: Any, same: bool, wanted: tuple[bool, bool], last: bool, more: int
) -> None:
    conv = layer(kernel, stride, same, more=more).double()
    layout = torch.channels_last if last else torch.contiguous_format
    x = cells(conv, size).double().contiguous(memory_format=layout).requires_grad_()
    out = conv(x)
    gradient = torch.randn(out.shape, dtype=torch.float64).contiguous(memory_format=layout)
    expected = torch.autograd.grad(out, [x, conv.weight], gradient)
    poison(x.detach())
    to_x, to_weight = wanted
    found = convolution_gradients(conv, x.detach(), conv.weight.detach(), gradient, to_x=to_x, to_weight=to_weight)
    for one, other, asked in zip(found, expected, wanted, strict=True):
        if asked:
            assert one is not None
            torch.testing.assert_close(one, other)
        else:
            assert one is None


@settings(max_examples=120)
@given(size=SIZES, kernel=KERNELS, stride=STRIDES, same=st.booleans(), lowered=st.booleans())
def test_gradients_in_the_dtypes_of_networks(
    size: tuple[int, int, int], kernel: Any, stride: Any, same: bool, lowered: bool
) -> None:
    # Against fp64: in bf16 oneDNN's own gradient of the weights may hold whatever the memory held.
    conv = layer(kernel, stride, same, channels=40)
    dtype = torch.bfloat16 if lowered else torch.float32
    x = cells(conv, size).to(dtype, memory_format=torch.channels_last)
    weight = conv.weight.detach().to(dtype)
    exact = conv.double()
    exact.weight.data = weight.double()
    leaf = x.double().requires_grad_()
    out = exact(leaf)
    gradient = torch.randn(out.shape).to(dtype, memory_format=torch.channels_last)
    expected = torch.autograd.grad(out, [leaf, exact.weight], gradient.double())
    poison(x)
    found = convolution_gradients(conv, x, weight, gradient, to_x=True, to_weight=True)
    for one, other in zip(found, expected, strict=True):
        assert one is not None
        assert float((one - other).norm()) <= (1e-2 if lowered else 1e-5) * float(other.norm()) + 1e-9


def test_a_large_map_is_taken_some_images_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    conv = layer(5, 2, same=True).double()
    x = cells(conv, (5, 9, 8)).double()
    gradient = torch.randn_like(conv(x))
    arguments = (conv, x, conv.weight.detach(), gradient)
    _, wanted = convolution_gradients(*arguments, to_x=False, to_weight=True)
    assert x.numel() < AT_ONCE
    for images in (1, 2, 7):
        monkeypatch.setattr("tood.ops.depthwise.AT_ONCE", images * x[0].numel())
        _, found = convolution_gradients(*arguments, to_x=False, to_weight=True)
        torch.testing.assert_close(found, wanted)


class LibraryGradients(TorchDispatchMode):
    """Notes what PyTorch's own backward pass is asked for: columns of the kernel, whether x's, whether the weights'."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[tuple[int, bool, bool]] = []

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if function.overloadpacket is torch.ops.aten.convolution_backward:
            self.asked.append((args[2].shape[3], args[-1][0], args[-1][1]))
        return function(*args, **(kwargs or {}))


@pytest.mark.skipif(not fuses_convolutions(torch.bfloat16), reason="this CPU has no convolutions in bf16")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("kernel", "stride"), [(3, 1), (3, 2), (5, 1), (5, 2)])
@pytest.mark.parametrize("same", [True, False])
def test_the_library_is_asked_for_what_it_has_code_for(
    dtype: torch.dtype, kernel: int, stride: int, same: bool
) -> None:
    conv, norm = layer(kernel, stride, same, channels=32), nn.BatchNorm2d(32).eval()
    x = cells(conv, (2, 12, 12)).requires_grad_()
    with LibraryGradients() as library, torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
        conv_norm(conv, norm, x, "relu6").float().sum().backward()
    for columns, to_x, to_weight in library.asked:
        assert not (to_x and dtype == torch.bfloat16)
        assert not (to_weight and columns > COLUMNS)
    assert any(to_weight for *_, to_weight in library.asked)


def test_what_is_taken_for_depthwise() -> None:
    assert is_depthwise(nn.Conv2d(4, 4, 3, groups=4))
    assert is_depthwise(SameConv2d(4, 4, (3, 2), 2, groups=4))
    assert not is_depthwise(nn.Conv2d(4, 8, 3, groups=4))
    assert not is_depthwise(nn.Conv2d(4, 4, 3, groups=2))
    assert not is_depthwise(nn.Conv2d(1, 1, 3))
    assert not is_depthwise(nn.Conv2d(4, 4, 3, groups=4, dilation=2))
    assert not is_depthwise(nn.Conv2d(4, 4, (1, 3), 2, groups=4))  # no kernel's cell saw odd rows


@pytest.mark.parametrize("stride", [1, 2])
def test_hooks_and_own_classes_take_the_plain_way(stride: int) -> None:
    class Doubled(SameConv2d):
        def forward(self, input: Tensor) -> Tensor:
            return 2 * super().forward(input)

    conv, norm = layer(3, stride, same=True), nn.BatchNorm2d(6).eval()
    x = cells(conv, (2, 8, 8))
    usual = conv_norm(conv, norm, x, "none")
    torch.testing.assert_close(usual, plain_conv_norm(conv, norm, x, "none"))
    called: list[bool] = []
    handle = conv.register_forward_hook(lambda *_: called.append(True))
    torch.testing.assert_close(conv_norm(conv, norm, x, "none"), usual)
    handle.remove()
    assert called == [True]
    norm.running_var.fill_(1 - norm.eps)  # type: ignore[union-attr, operator]
    conv.__class__ = Doubled
    torch.testing.assert_close(conv_norm(conv, norm, x, "none"), 2 * usual, rtol=1e-4, atol=1e-5)
