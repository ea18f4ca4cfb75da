"""RepVGG's block and the convolution that it becomes."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from torch import nn

from narrow_models import lively_norms
from tood.models.common.conv_block import ConvNormAct
from tood.models.common.rep_block import RepBlock
from tood.ops import CannotFuse

NORM = partial(nn.BatchNorm2d, eps=1e-3, momentum=0.03)


@pytest.mark.parametrize("activation", ["none", "relu", "silu"])
@pytest.mark.parametrize(
    ("inputs", "outputs", "stride", "groups", "identity", "alpha"),
    [
        (6, 6, 1, 1, False, True),
        (6, 6, 1, 1, True, False),
        (4, 8, 2, 1, False, False),
        (8, 8, 1, 2, True, True),
        (128, 128, 1, 1, True, False),
    ],
)
def test_the_branches_are_one_convolution(
    inputs: int, outputs: int, stride: int, groups: int, identity: bool, alpha: bool, activation: str
) -> None:
    torch.manual_seed(inputs + stride)
    block = RepBlock(inputs, outputs, stride, groups, activation, identity, alpha, NORM)  # type: ignore[arg-type]
    lively_norms(block)
    if block.alpha is not None:
        nn.init.constant_(block.alpha, -0.7)
    x = torch.randn(2, inputs, 9, 13).to(memory_format=torch.channels_last)
    with torch.inference_mode():
        wanted = block(x)
        fused = block.fuse(torch.float32)(x)
        bare = block.merged()(x)
    torch.testing.assert_close(fused, wanted, rtol=1e-4, atol=1e-5)
    activation_of = {"none": nn.Identity(), "relu": nn.ReLU(), "silu": nn.SiLU()}
    torch.testing.assert_close(activation_of[activation](bare), wanted, rtol=1e-4, atol=1e-5)
    assert list(block.merged().state_dict()) == ["weight", "bias"]


@pytest.mark.parametrize("activation", ["none", "relu", "silu"])
@pytest.mark.parametrize("kernel", [1, 3])
def test_a_plain_block_is_one_operation(kernel: int, activation: str) -> None:
    torch.manual_seed(kernel)
    block = ConvNormAct(8, 16, kernel, 2, activation=activation, norm=NORM)  # type: ignore[arg-type]
    lively_norms(block)
    x = torch.randn(2, 8, 9, 13).to(memory_format=torch.channels_last)
    with torch.inference_mode():
        torch.testing.assert_close(block.fuse(torch.float32)(x), block(x), rtol=1e-4, atol=1e-5)
        lower = block.fuse(torch.bfloat16)(x.bfloat16()).float()
        torch.testing.assert_close(lower, block(x), rtol=0.05, atol=0.05)


def test_what_somebody_watches_or_replaced_is_not_merged() -> None:
    block = RepBlock(4, 4, identity=True).eval()
    block.pointwise.conv = nn.Sequential(nn.Conv2d(4, 4, 1, bias=False))  # wrapped: of another kind
    with pytest.raises(CannotFuse):
        block.fuse(torch.float32)
    hooked = RepBlock(4, 4).eval()
    hooked.dense.register_forward_hook(lambda *_: None)
    with pytest.raises(CannotFuse):
        hooked.merged()


@pytest.mark.parametrize("stride", [1, 2])
def test_a_bias_before_a_norm_is_in_the_merged_one(stride: int) -> None:
    torch.manual_seed(0)
    block = ConvNormAct(4, 6, 1 if stride == 2 else 5, stride, groups=2, bias=True).eval()
    for values in (block.conv.bias, block.norm.running_mean, block.norm.bias):
        nn.init.normal_(values)
    fused = block.fuse(torch.float32)
    x = torch.randn(2, 4, 9, 7)
    with torch.inference_mode():
        torch.testing.assert_close(fused(x.to(memory_format=torch.channels_last)), block(x), rtol=1e-4, atol=1e-5)
