"""The modulated deformable layer (DCNv2, Zhu et al. 2019), and the copy of it that only predicts."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from tood.ops import Activation, InferenceConv2d, deform_conv2d, fused_conv, known
from tood.ops.activation import activated, activation_of
from tood.ops.inference import scale_and_shift
from tood.ops.same_conv import conv_kind


class DeformConv2d(nn.Conv2d):
    """A 3x3 convolution whose nine points are read where a second convolution says, and as strongly as it says.

    Attributes:
        offset: the 3x3 convolution, of the same stride, that predicts for each deformable group 9 (dy, dx) pairs in
            input cells and 9 masks (logits); zero-initialised, so that training starts from half the plain convolution.
        deform_groups: groups of input channels with offsets and masks of their own.
    """

    def __init__(self, inputs: int, outputs: int, stride: int = 1, groups: int = 1, deform_groups: int = 1) -> None:
        super().__init__(inputs, outputs, 3, stride, padding=1, groups=groups, bias=False)
        self.deform_groups = deform_groups
        self.offset = nn.Conv2d(inputs, deform_groups * 3 * 9, 3, stride, padding=1)
        nn.init.zeros_(self.offset.weight)
        assert self.offset.bias is not None
        nn.init.zeros_(self.offset.bias)

    def forward(self, x: Tensor) -> Tensor:
        """[B, inputs, H, W] -> [B, outputs, H / stride, W / stride]."""
        first, second, mask = self.offset(x).chunk(3, dim=1)
        offsets = torch.cat([first, second], dim=1)  # [B, groups * 9 * 2, h, w] as (dy, dx) pairs
        return deform_conv2d(x, offsets, mask.sigmoid(), self.weight, self.stride[0], self.groups)


class InferenceDeformConv2d(nn.Module):
    """A deformable convolution, its bias, an activation; in fp32 whatever comes in: its offsets need all their bits.

    Args:
        conv: the layer.
        scale, bias: [O] of a norm that follows it, or None.
        activation: what follows; True and False stand for "relu" and "none".
    """

    def __init__(
        self, conv: DeformConv2d, scale: Tensor | None, bias: Tensor | None, activation: Activation | bool
    ) -> None:
        super().__init__()
        self.conv = copy.deepcopy(conv).requires_grad_(False)
        self.conv.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        if scale is not None:
            self.conv.weight.mul_(scale[:, None, None, None])
        self.bias = None if bias is None else bias.detach()[:, None, None]
        self.activation = activation_of(activation)

    def forward(self, x: Tensor, added: None = None, reused: Tensor | None = None) -> Tensor:
        """[B, C, H, W] -> [B, O, h, w], both in channels-last memory; nothing is added, `reused` is left alone."""
        out: Tensor = self.conv(x.float())
        if self.bias is not None:
            out = out.add_(self.bias)
        out = activated(out, self.activation, inplace=True)
        return out.to(x.dtype, memory_format=torch.channels_last)


def fused(
    conv: nn.Module,
    norm: nn.Module | None,
    activation: Activation | bool,
    dtype: torch.dtype,
    sees_all_levels: bool = False,
) -> InferenceConv2d | InferenceDeformConv2d:
    """A convolution, deformable or not, with the BatchNorm and ReLU that follow it, as one that only predicts.

    Args:
        conv: the layer.
        norm: in evaluation mode; None: there is none.
        activation: what follows; True and False stand for "relu" and "none".
        dtype, sees_all_levels: as of `InferenceConv2d`.

    Raises:
        CannotFuse: if the layer or the norm is of another kind.
    """
    if isinstance(conv, DeformConv2d):
        conv = known(conv, DeformConv2d)
        scale, bias = (None, None) if norm is None else scale_and_shift(norm, conv)
        return InferenceDeformConv2d(conv, scale, bias, activation)
    return fused_conv(known(conv, conv_kind(conv)), norm, activation, dtype, sees_all_levels)
