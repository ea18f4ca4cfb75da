"""RepVGG's re-parameterisable block (Ding et al. 2021): several branches that learn, one convolution that predicts."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tood.models.common.conv_block import ConvNormAct, NormMaker, known_conv
from tood.ops import Activation, InferenceConv2d, known
from tood.ops.activation import activated
from tood.ops.inference import norm_scale_and_shift, scale_and_shift


class RepBlock(nn.Module):
    """The sum of a 3x3 and a 1x1 convolution of the same input, each with a BatchNorm of its own, then the activation.

    In evaluation mode every branch is linear, so that all of them are one 3x3 convolution: `merged`.

    Args:
        inputs, outputs: channels.
        stride, groups: of both convolutions.
        activation: what follows the sum.
        identity: whether the input itself, through a BatchNorm, is a third branch, as in RepVGG where neither size nor
            channels change.
        alpha: whether a factor that is learnt weighs the 1x1 branch, 1 at first (PP-YOLOE+).
        norm: makes the BatchNorms.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        stride: int = 1,
        groups: int = 1,
        activation: Activation = "relu",
        identity: bool = False,
        alpha: bool = False,
        norm: NormMaker = nn.BatchNorm2d,
    ) -> None:
        super().__init__()
        assert not identity or (inputs == outputs and stride == 1), "the identity changes neither size nor channels"
        self.dense = ConvNormAct(inputs, outputs, 3, stride, groups, "none", norm)
        self.pointwise = ConvNormAct(inputs, outputs, 1, stride, groups, "none", norm)
        self.identity = norm(outputs) if identity else None
        self.alpha = nn.Parameter(torch.ones(1)) if alpha else None
        self.activation: Activation = activation

    def forward(self, x: Tensor) -> Tensor:
        """[B, inputs, H, W] -> [B, outputs, ceil(H / stride), ceil(W / stride)]."""
        small = self.pointwise(x)
        out = self.dense(x) + (small if self.alpha is None else self.alpha * small)
        if self.identity is not None:
            out = out + self.identity(x)
        return activated(out, self.activation)

    @torch.no_grad()
    def merged(self) -> nn.Conv2d:
        """All branches in evaluation mode as one 3x3 convolution with bias, without the activation.

        Raises:
            CannotFuse: if a branch is of another kind than it was built of.
        """
        known(self, RepBlock)
        dense, dense_bias = _folded(self.dense)
        small, small_bias = _folded(self.pointwise)
        if self.alpha is not None:
            small, small_bias = small * self.alpha.double(), small_bias * self.alpha.double()
        weight, bias = dense + F.pad(small, (1, 1, 1, 1)), dense_bias + small_bias
        if self.identity is not None:
            scale, shift = norm_scale_and_shift(self.identity)
            channel = torch.arange(len(weight), device=weight.device)
            weight[channel, channel % weight.shape[1], 1, 1] += scale.double()
            bias = bias + shift
        of = self.dense.conv
        conv = nn.Conv2d(of.in_channels, of.out_channels, 3, of.stride[0], 1, groups=of.groups, device=weight.device)
        conv.weight.copy_(weight)
        assert conv.bias is not None
        conv.bias.copy_(bias)
        return conv.eval().requires_grad_(False)

    def fuse(self, dtype: torch.dtype) -> InferenceConv2d:
        """The same as one operation, to predict with; raises `CannotFuse` where a branch is of another kind."""
        conv = self.merged()
        return InferenceConv2d(conv.weight, conv.bias, conv.stride[0], 1, conv.groups, self.activation, dtype)


def _folded(branch: nn.Module) -> tuple[Tensor, Tensor]:
    """Weights and bias of a branch's convolution with its norm folded in, in double precision."""
    branch = known(branch, ConvNormAct)
    conv = known_conv(branch.conv)
    scale, shift = scale_and_shift(branch.norm, conv)
    return conv.weight.double() * scale.double()[:, None, None, None], shift.double()
