"""Gradients of convolutions on a CPU, as matrix products where oneDNN's own take longer.

oneDNN reorders the weights of a convolution at each call, and writes their gradient in an order of its own: with a
thousand channels and a small map that costs as much as the computation. A 1x1 convolution's gradients are two products
of matrices that lie in memory as they are wanted; a 3x3 one's gradient of the weights on a small map is one product
with the 3x3 neighbourhoods. Depthwise convolutions have a room of their own, `depthwise.py`.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tood.ops.arithmetic import in_own_dtype
from tood.ops.conv_geometry import Geometry, library_gradients
from tood.ops.depthwise import depthwise_gradients, is_depthwise

# Cells of a map, those of all images together, up to which it is a small one.
SMALL = 400


@in_own_dtype
def convolution_gradients(
    conv: nn.Conv2d, x: Tensor, weight: Tensor, gradient: Tensor, *, to_x: bool, to_weight: bool
) -> tuple[Tensor | None, Tensor | None]:
    """The gradients towards what came in and towards the weights.

    Args:
        conv: its stride, padding, dilation and groups; with more zeros after the map than before it only without
            dilation.
        x: [B, C, H, W].
        weight: [O, C / groups, k, k], of x's dtype.
        gradient: [B, O, h, w] of what came out.
        to_x: whether that towards x is wanted.
        to_weight: whether that towards the weights is.

    Returns:
        Each of its tensor's shape, or None where it is not wanted.
    """
    if is_pointwise(conv):
        return _pointwise(conv, x, weight, gradient, to_x, to_weight)
    if to_weight and x.dtype == torch.bfloat16 and x.shape[3] < conv.stride[1]:
        # oneDNN multiplies columns that it never wrote by zero here: where memory held a NaN, so does the gradient.
        found_x, _ = convolution_gradients(conv, x, weight, gradient, to_x=to_x, to_weight=False)
        in_fp32 = [tensor.float() for tensor in (x, weight, gradient)]
        _, exact = convolution_gradients(conv, *in_fp32, to_x=False, to_weight=True)
        return found_x, None if exact is None else exact.to(weight.dtype)
    geometry = Geometry.of(conv, x)
    if is_depthwise(conv):
        return depthwise_gradients(geometry, x, weight, gradient, to_x=to_x, to_weight=to_weight)
    as_product = to_weight and is_small(gradient) and is_usual_3x3(conv)
    found_x, found_weight = library_gradients(
        geometry, x, weight, gradient, to_x=to_x, to_weight=to_weight and not as_product
    )
    if as_product:
        found_weight = weight_gradient(by_cell(gradient), neighbourhoods(x, conv.stride[0]))
    return found_x, found_weight


def is_usual_3x3(conv: nn.Conv2d) -> bool:
    """Whether it is a convolution of padding 1 without dilation or groups, of the same stride both ways."""
    usual = (conv.kernel_size, conv.padding, conv.dilation, conv.groups) == ((3, 3), (1, 1), (1, 1), 1)
    return usual and conv.stride[0] == conv.stride[1]


def keeps_size_3x3(conv: nn.Conv2d) -> bool:
    """Whether it is one of these, of stride 1, with zeros outside of the map."""
    return is_usual_3x3(conv) and conv.stride == (1, 1) and conv.padding_mode == "zeros"


def is_small(features: Tensor) -> bool:
    """Whether a map [B, O, h, w] has few cells."""
    return features[:, 0].numel() <= SMALL


def by_cell(features: Tensor) -> Tensor:
    """[B, C, h, w] -> [B * h * w, C]."""
    return features.permute(0, 2, 3, 1).flatten(0, 2)


def neighbourhoods(x: Tensor, stride: int = 1) -> Tensor:
    """[B, C, H, W] -> [B * h * w, 9 * C]: what a 3x3 convolution of padding 1 sees for each output, zeros outside."""
    padded = F.pad(x.permute(0, 2, 3, 1), (0, 0, 1, 1, 1, 1))  # [B, H + 2, W + 2, C]
    windows = padded.unfold(1, 3, stride).unfold(2, 3, stride)  # [B, h, w, C, 3, 3]
    return windows.permute(0, 1, 2, 4, 5, 3).flatten(0, 2).flatten(1)


def weight_gradient(gradients: Tensor, cells: Tensor) -> Tensor:
    """Gradients [R, O] of outputs that saw `neighbourhoods` [R, 9 * C] -> [O, C, 3, 3]."""
    product = gradients.t() @ cells
    return product.view(len(product), 3, 3, -1).permute(0, 3, 1, 2)


def is_pointwise(conv: nn.Conv2d) -> bool:
    """Whether it is a 1x1 convolution of whatever stride, without padding or groups."""
    return conv.kernel_size == (1, 1) and conv.padding == (0, 0) and conv.groups == 1


def _pointwise(
    conv: nn.Conv2d, x: Tensor, weight: Tensor, gradient: Tensor, to_x: bool, to_weight: bool
) -> tuple[Tensor | None, Tensor | None]:
    down, across = conv.stride
    rows = by_cell(gradient)  # [B * h * w, O]
    found_x = found_weight = None
    if to_x:
        batch, _, height, width = gradient.shape
        found_x = (rows @ weight.flatten(1)).view(batch, height, width, x.shape[1]).permute(0, 3, 1, 2)
        if (down, across) != (1, 1):
            seen = found_x
            found_x = torch.zeros_like(x, memory_format=torch.channels_last)
            found_x[:, :, ::down, ::across] = seen
    if to_weight:
        found_weight = (rows.t() @ by_cell(x[:, :, ::down, ::across])).view_as(weight)
    return found_x, found_weight
