"""Modulated deformable convolution (DCNv2, Zhu et al. 2019) in plain PyTorch: trains, compiles and exports anywhere."""

from __future__ import annotations

import torch
from torch import Tensor, nn


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


def deform_conv2d(x: Tensor, offsets: Tensor, masks: Tensor, weight: Tensor, stride: int, groups: int = 1) -> Tensor:
    """Modulated deformable 3x3 convolution with padding 1.

    Args:
        x: [B, C, H, W].
        offsets: [B, D * 9 * 2, h, w] (dy, dx) in input cells for each of D deformable groups and 9 kernel points.
        masks: [B, D * 9, h, w] factor of each sample.
        weight: [O, C / groups, 3, 3].
        stride: of the output over the input.
        groups: of the convolution.

    Returns:
        [B, O, h, w]. Sampling is bilinear with zeros outside of `x`.
    """
    batch, channels = x.shape[:2]
    out_height, out_width = offsets.shape[2:]
    deform_groups = masks.shape[1] // 9
    # Positions in fp32 at least: bf16 cannot tell neighbouring cells apart.
    offsets = offsets.to(torch.promote_types(offsets.dtype, torch.float32))
    offsets = offsets.reshape(batch * deform_groups, 9, 2, out_height, out_width)
    kernel = torch.arange(3, device=x.device) - 1
    rows = torch.arange(out_height, device=x.device)[:, None] * stride + kernel.repeat_interleave(3)[:, None, None]
    columns = torch.arange(out_width, device=x.device) * stride + kernel.repeat(3)[:, None, None]
    y, x_position = rows + offsets[:, :, 0], columns + offsets[:, :, 1]  # [B * D, 9, h, w] each
    samples = sample_bilinear(x.reshape(batch * deform_groups, -1, *x.shape[2:]), y, x_position)
    samples = samples * masks.reshape(batch * deform_groups, 1, 9, out_height, out_width)  # [B * D, C / D, 9, h, w]
    # The convolution is a matrix product over channels and kernel points.
    points = samples.reshape(batch, groups, (channels // groups) * 9, out_height * out_width)
    kernels = weight.reshape(groups, -1, (channels // groups) * 9)
    return torch.matmul(kernels, points).reshape(batch, -1, out_height, out_width)


def sample_bilinear(maps: Tensor, y: Tensor, x: Tensor) -> Tensor:
    """Maps read between their cells, zeros outside.

    Unlike `grid_sample` it takes positions in cells, not in shares of the map: no bits are lost on the way there and
    back, which deep stacks of deformable layers would amplify.

    Args:
        maps: [M, C, H, W].
        y, x: [M, ...] positions in cells.

    Returns:
        [M, C, ...] in the wider type of map and position.
    """
    height, width = maps.shape[2:]
    flat = maps.flatten(2)  # [M, C, H * W]
    top, left = y.detach().floor(), x.detach().floor()
    below, right = y - top, x - left

    def corner(rows: Tensor, columns: Tensor, share: Tensor) -> Tensor:
        within = (rows >= 0) & (rows < height) & (columns >= 0) & (columns < width)
        cell = rows.clamp(0, height - 1) * width + columns.clamp(0, width - 1)
        values = flat.gather(2, cell.long().flatten(1)[:, None].expand(-1, flat.shape[1], -1))  # [M, C, P]
        return values.reshape(*values.shape[:2], *y.shape[1:]) * (share * within)[:, None]

    return (
        corner(top, left, (1 - below) * (1 - right))
        + corner(top, left + 1, (1 - below) * right)
        + corner(top + 1, left, below * (1 - right))
        + corner(top + 1, left + 1, below * right)
    )
