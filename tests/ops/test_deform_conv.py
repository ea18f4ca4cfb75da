from __future__ import annotations

import math
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from tood.models.common.deform_conv import DeformConv2d
from tood.ops import deform_conv
from tood.ops.deform_conv import (
    deform_conv2d,
    in_one_graph,
    torchvision_operator,
    with_torchvision,
)


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


def with_loaded_torchvision(
    x: Tensor, offsets: Tensor, masks: Tensor, weight: Tensor, stride: int, groups: int
) -> Tensor:
    operator = torchvision_operator()
    if operator is None:
        pytest.skip("torchvision's compiled operators do not load here")
    return with_torchvision(operator, x, offsets, masks, weight, stride, groups)


def in_pieces(*arguments: Any) -> Tensor:
    return deform_conv.InPieces.apply(*arguments)  # type: ignore[no-any-return]


def random_inputs(
    batch: int, channels: int, size: tuple[int, int], stride: int, groups: int, deform_groups: int
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """x, offsets, masks and weight in float64; some samples fall far outside."""
    generator = torch.Generator().manual_seed(0)
    shape = [-(-side // stride) for side in size]

    def random(*shape: int, scale: float = 1.0) -> Tensor:
        return (torch.randn(*shape, generator=generator, dtype=torch.float64) * scale).requires_grad_()

    return (
        random(batch, channels, *size),
        random(batch, deform_groups * 18, *shape, scale=1.5),
        random(batch, deform_groups * 9, *shape),
        random(channels, channels // groups, 3, 3),
    )


@pytest.mark.parametrize("formulation", [deform_conv2d, in_pieces, in_one_graph, with_loaded_torchvision])
@pytest.mark.parametrize(("stride", "groups", "deform_groups"), [(1, 1, 1), (2, 1, 2), (1, 2, 4), (2, 2, 1)])
def test_it_is_the_definition_in_value_and_gradient(
    formulation: Callable[..., Tensor], stride: int, groups: int, deform_groups: int
) -> None:
    inputs = random_inputs(1, 4, (4, 3), stride, groups, deform_groups)
    given, wanted = formulation(*inputs, stride, groups), slow(*inputs, stride, groups)
    torch.testing.assert_close(given, wanted)
    seed = torch.randn(given.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    gradients, wanted_gradients = (torch.autograd.grad(out, inputs, seed) for out in (given, wanted))
    for ours, theirs in zip(gradients, wanted_gradients, strict=True):
        torch.testing.assert_close(ours, theirs)
    assert torch.autograd.gradcheck(lambda *tensors: formulation(*tensors, stride, groups), inputs, fast_mode=True)


@pytest.mark.parametrize("piece", [1, 4000, 9000])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_pieces_make_no_difference(piece: int, layout: torch.memory_format, monkeypatch: pytest.MonkeyPatch) -> None:
    # A row of an image has 2880 bytes of samples, an image 11520: pieces of one row, of one row, of three.
    inputs = [tensor.detach().requires_grad_() for tensor in random_inputs(3, 8, (7, 5), 2, 2, 4)]
    inputs[0] = inputs[0].detach().contiguous(memory_format=layout).requires_grad_()
    results = []
    for pieces in ({}, {"cpu": piece}):
        for name in ("FORWARD_PIECE", "BACKWARD_PIECE"):
            monkeypatch.setattr(deform_conv, name, pieces)
        out = in_pieces(*inputs, 2, 2)
        assert out.is_contiguous(memory_format=layout)
        results.append(
            (out, *torch.autograd.grad((out * torch.linspace(0, 1, out.numel()).view_as(out)).sum(), inputs))
        )
    for whole, pieced in zip(*results, strict=True):
        torch.testing.assert_close(whole, pieced)


def test_the_graph_for_exporters_has_the_same_bits() -> None:
    inputs = [tensor.detach().float() for tensor in random_inputs(2, 32, (20, 17), 1, 1, 4)]
    assert torch.equal(in_pieces(*inputs, 1, 1), in_one_graph(*inputs, 1, 1))


def test_compiled_it_gives_the_same_numbers_and_gradients() -> None:
    torch.manual_seed(0)
    layer = DeformConv2d(8, 8, stride=2, groups=2, deform_groups=4)
    nn.init.normal_(layer.offset.weight, std=0.2)
    x = torch.randn(2, 8, 9, 7)
    compiled = torch.compile(layer, backend="aot_eager", fullgraph=True)
    results = []
    for function in (layer, compiled):
        out = function(x)
        results.append((out, *torch.autograd.grad(out.square().sum(), list(layer.parameters()))))
    for eager, graph in zip(*results, strict=True):
        torch.testing.assert_close(eager, graph, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("stride", [1, 2])
def test_it_starts_as_half_the_plain_convolution(stride: int) -> None:
    layer = DeformConv2d(6, 4, stride=stride, deform_groups=2)
    x = torch.randn(2, 6, 9, 7)
    plain = nn.functional.conv2d(x, layer.weight, stride=stride, padding=1)
    torch.testing.assert_close(layer(x), plain / 2, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("groups", [1, 4])
def test_reduced_precision_samples_at_exact_places(groups: int) -> None:
    torch.manual_seed(0)
    layer = DeformConv2d(16, 16, groups=groups)
    nn.init.normal_(layer.offset.weight, std=0.01)
    # bf16 cannot tell cells 260 and 261 apart.
    x = torch.randn(1, 16, 4, 300)
    with torch.autocast("cpu", torch.bfloat16):
        given = layer(x)
        given.float().square().sum().backward()
    assert given.dtype == torch.bfloat16
    torch.testing.assert_close(given.float(), layer(x), rtol=0.05, atol=0.05)
    assert layer.weight.grad is not None
    assert torch.isfinite(layer.weight.grad).all()
    halved = DeformConv2d(16, 16, groups=groups).bfloat16()
    assert halved(x.bfloat16()).dtype == torch.bfloat16


def test_a_position_that_is_no_number_spoils_its_own_place_alone() -> None:
    x, offsets, masks, weight = (t.detach() for t in random_inputs(1, 4, (5, 6), 1, 1, 1))
    wanted = deform_conv2d(x, offsets, masks, weight, 1)
    offsets[0, 3, 2, 1] = math.nan
    offsets[0, 4, 4, 4] = math.inf
    given = deform_conv2d(x, offsets, masks, weight, 1)
    assert given[0, :, 2, 1].isnan().all()
    changed = (given != wanted)[0].any(dim=0).nonzero().tolist()
    assert changed in ([[2, 1]], [[2, 1], [4, 4]])
    assert torch.isfinite(given[0, :, 4, 4]).all()


class Largest(TorchDispatchMode):
    """The largest tensor that anything computed."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = function(*args, **(kwargs or {}))
        sizes = [leaf.numel() * leaf.element_size() for leaf in tree_leaves(out) if isinstance(leaf, Tensor)]
        self.bytes = max([self.bytes, *sizes])
        return out


@pytest.mark.skipif(torchvision_operator() is not None, reason="torchvision's operator has buffers of its own")
def test_the_samples_of_a_batch_are_never_all_in_memory() -> None:
    layer = DeformConv2d(64, 64)
    x = torch.randn(8, 64, 50, 84, requires_grad=True)
    with Largest() as largest:
        layer(x).sum().backward()
    samples = 9 * x.numel() * x.element_size()
    assert largest.bytes < samples / 3
    assert largest.bytes <= deform_conv.BACKWARD_PIECE["cpu"]


def documented_operator(
    input: Tensor,
    weight: Tensor,
    offset: Tensor,
    mask: Tensor,
    bias: Tensor,
    *numbers: int | bool,
) -> Tensor:
    """torchvision's operator as its documentation packs the arguments, by the definition above."""
    stride_h, stride_w, pad_h, pad_w, dilation_h, dilation_w, groups, offset_groups, use_mask = numbers
    assert (stride_h, pad_h, pad_w, dilation_h, dilation_w, use_mask) == (stride_w, 1, 1, 1, 1, True)
    batch, _, height, width = offset.shape
    # offset[batch, 2 * offset_groups * kernel height * kernel width]: y first, then x.
    pairs = offset.view(batch, int(offset_groups), 3, 3, 2, height, width)
    factors = mask.view(batch, int(offset_groups), 3, 3, height, width)
    assert not bias.any()
    assert bias.shape == (len(weight),)
    ours, our_masks = torch.empty_like(offset), torch.empty_like(mask)
    for group in range(int(offset_groups)):
        for row in range(3):
            for column in range(3):
                point = 9 * group + 3 * row + column
                ours[:, 2 * point] = pairs[:, group, row, column, 0]
                ours[:, 2 * point + 1] = pairs[:, group, row, column, 1]
                our_masks[:, point] = factors[:, group, row, column]
    return slow(input, ours, our_masks, weight, int(stride_h), int(groups))


@pytest.mark.parametrize(("stride", "groups", "deform_groups"), [(1, 1, 2), (2, 2, 4)])
def test_offsets_and_masks_are_packed_as_torchvision_s_operator_reads_them(
    stride: int, groups: int, deform_groups: int
) -> None:
    x, offsets, masks, weight = (t.detach() for t in random_inputs(1, 4, (4, 3), stride, groups, deform_groups))
    given = with_torchvision(documented_operator, x, offsets, masks, weight, stride, groups)
    torch.testing.assert_close(given, slow(x, offsets, masks, weight, stride, groups))


FAKE_TORCHVISION = """
import importlib.machinery, importlib.util, sys
class Broken:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "torchvision":
            return importlib.machinery.ModuleSpec(name, self, is_package=True)
    def create_module(self, spec): return None
    def exec_module(self, module): raise {error}
sys.meta_path.insert(0, Broken())
"""


@pytest.fixture(params=["RuntimeError('operator torchvision::nms does not exist')", "OSError('libcudart.so')", None])
def preamble(request: pytest.FixtureRequest) -> Iterator[str]:
    """Code that breaks torchvision, or makes it missing."""
    if request.param is None:
        yield "import sys; sys.modules['torchvision'] = None\n"
    else:
        yield FAKE_TORCHVISION.format(error=request.param)


def test_a_torchvision_that_does_not_load_is_done_without(preamble: str) -> None:
    code = preamble + (
        "import sys, torch\n"
        "from tood.models import build_model\n"
        "from tood.models.common.deform_conv import DeformConv2d\n"
        "from tood.ops.deform_conv import torchvision_operator\n"
        "print(any(name.startswith('torchvision.') for name in sys.modules))\n"
        "print(torchvision_operator(), DeformConv2d(4, 4)(torch.zeros(1, 4, 5, 5)).shape)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.splitlines() == ["False", "None torch.Size([1, 4, 5, 5])"], done.stderr
