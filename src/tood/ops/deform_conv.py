"""Modulated deformable convolution (DCNv2, Zhu et al. 2019): torchvision's operator where it loads, else plain PyTorch.

The PyTorch formulation reads whole channel vectors: the map lies as a table with a row for each cell and deformable
group, in a border of zeros; a sample is the weighted sum of four rows; the convolution is a matrix product over the
nine samples of a place. Sums are taken in the published implementations' order: deep stacks amplify rounding.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache
from importlib.util import find_spec
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from tood.ops.arithmetic import differentiable_once
from tood.ops.guard import may_stand_in

# Samples held at once, in bytes; all of them together are 9 times as many numbers as the map. On a CPU a piece stays in
# its cache. Backwards each piece costs a pass over the whole map's gradient.
FORWARD_PIECE = {"cpu": 2 << 20}
BACKWARD_PIECE = {"cpu": 24 << 20}
OTHER_PIECE = 256 << 20


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
    if torch.compiler.is_compiling() or torch._C._is_tracing():
        return in_one_graph(x, offsets, masks, weight, stride, groups)
    if x.is_meta and not torch.is_grad_enabled():
        # Only shapes count there: as many samples, none of them in memory.
        places = masks[:, 0].numel()
        points = x.new_empty(groups, 1, x.shape[1] // groups * 9).expand(-1, places, -1)
        return _product(points, weight, masks, channels_last=False)
    if not may_stand_in((), (x, offsets, masks, weight)):
        return plain_deform_conv2d(x, offsets, masks, weight, stride, groups)
    operator = torchvision_operator() if x.device.type in ("cpu", "cuda") else None
    # The order of the sums in its gradient is another one each time on a GPU.
    if operator is not None and (x.device.type == "cpu" or not torch.are_deterministic_algorithms_enabled()):
        return with_torchvision(operator, x, offsets, masks, weight, stride, groups)
    out: Tensor = InPieces.apply(x, offsets, masks, weight, stride, groups)  # type: ignore[no-untyped-call]
    return out


def plain_deform_conv2d(
    x: Tensor, offsets: Tensor, masks: Tensor, weight: Tensor, stride: int, groups: int = 1
) -> Tensor:
    """What `deform_conv2d` stands for: nine samples of each place, and a 1x1 convolution of all of them."""
    batch, channels, height, width = x.shape
    deform_groups, (rows, columns) = masks.shape[1] // 9, masks.shape[2:]
    dy, dx = _at_least_fp32(offsets).reshape(-1, 9, 2, rows, columns).unbind(2)  # [B * D, 9, h, w] each
    point = torch.arange(9, device=x.device)[:, None, None]
    y = dy + torch.arange(rows, device=x.device)[:, None] * stride + (point // 3 - 1)
    x_ = dx + torch.arange(columns, device=x.device) * stride + (point % 3 - 1)
    # grid_sample's coordinates: -1 and 1 are the map's outer edges, cells lie at (2 i + 1) / size - 1.
    grid = torch.stack([(2 * x_ + 1) / width - 1, (2 * y + 1) / height - 1], dim=-1).flatten(1, 2)
    maps = _at_least_fp32(x).reshape(batch * deform_groups, -1, height, width)
    samples = F.grid_sample(maps, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
    samples = torch.unflatten(samples, 2, (9, rows)) * masks.reshape(-1, 1, 9, rows, columns)  # [B * D, C / D, 9, h, w]
    samples = samples.reshape(batch, channels * 9, rows, columns).to(weight.dtype)
    return F.conv2d(samples, weight.reshape(len(weight), -1, 1, 1), groups=groups)


def in_one_graph(x: Tensor, offsets: Tensor, masks: Tensor, weight: Tensor, stride: int, groups: int) -> Tensor:
    """`deform_conv2d` for compilers and exporters: no loop over pieces, and operations that every runtime knows."""
    table = _table(x, masks)
    points = _points(table, offsets, masks, 0, stride, groups, (x.shape[2], x.shape[3]), _weighted_rows)
    return _product(points, weight, masks, channels_last=False).contiguous()


class InPieces(torch.autograd.Function):
    """`deform_conv2d` piece by piece, of some rows of an image or some images; samples are not kept but read again."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, offsets: Tensor, masks: Tensor, weight: Tensor, stride: int, groups: int
    ) -> Tensor:
        """See `deform_conv2d`."""
        ctx.save_for_backward(x, offsets, masks, weight)
        ctx.stride, ctx.groups = stride, groups
        size = (x.shape[2], x.shape[3])
        channels_last = not x.is_contiguous()
        images = []
        images_at_once, rows_at_once = _split(x, masks, FORWARD_PIECE.get(x.device.type, OTHER_PIECE))
        for some in _slices(len(x), images_at_once):
            table = _table(x[some], masks)
            parts = []
            for rows in _slices(masks.shape[2], rows_at_once):
                those = masks[some, :, rows]
                points = _points(table, offsets[some, :, rows], those, rows.start, stride, groups, size, _weighted_rows)
                parts.append(_product(points, weight, those, channels_last))
            images.append(torch.cat(parts, dim=2))
        memory = torch.channels_last if channels_last else torch.contiguous_format
        return torch.cat(images).contiguous(memory_format=memory)

    @staticmethod
    @differentiable_once
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients of x, offsets, masks and weight."""
        x, offsets, masks, weight = ctx.saved_tensors
        stride, groups, size = ctx.stride, ctx.groups, (x.shape[2], x.shape[3])
        channels_last = not gradient.is_contiguous()
        kernels = weight.to(gradient.dtype).reshape(groups, len(weight) // groups, -1)  # [G, O / G, 9 C / G]
        of_kernels = torch.zeros_like(kernels, dtype=weight.dtype)
        of_x, of_offsets, of_masks = torch.empty_like(x), torch.empty_like(offsets), torch.empty_like(masks)
        images_at_once, rows_at_once = _split(x, masks, BACKWARD_PIECE.get(x.device.type, OTHER_PIECE))
        for some in _slices(len(x), images_at_once):
            with torch.enable_grad():
                images = x[some].detach().requires_grad_()
                table = _table(images, masks)
            of_table = torch.zeros_like(table)
            for rows in _slices(masks.shape[2], rows_at_once):
                with torch.enable_grad():
                    inputs = [tensor[some, :, rows].detach().requires_grad_() for tensor in (offsets, masks)]
                    points = _points(table, inputs[0], inputs[1], rows.start, stride, groups, size, _weighted_rows_fast)
                seed = _by_group(gradient[some, :, rows], groups, channels_last)  # [G, O / G, places]
                of_kernels += torch.bmm(seed, points.detach().to(seed.dtype))
                of_points = torch.bmm(seed.transpose(1, 2), kernels).to(points.dtype)
                part, of_offsets[some, :, rows], of_masks[some, :, rows] = torch.autograd.grad(
                    points, (table, *inputs), of_points
                )
                of_table += part
            (of_x[some],) = torch.autograd.grad(table, images, of_table)
        return of_x, of_offsets, of_masks, of_kernels.reshape(weight.shape), None, None


def _split(x: Tensor, masks: Tensor, piece: int) -> tuple[int, int]:
    """How many images and how many of their output rows make at most `piece` bytes of samples, but one row at least."""
    rows, columns = masks.shape[2:]
    bytes_a_row = x.shape[1] * 9 * columns * max(x.element_size(), 4)
    return max(piece // (bytes_a_row * rows), 1), min(max(piece // bytes_a_row, 1), rows)


def _slices(count: int, at_once: int) -> Iterator[slice]:
    return (slice(start, min(start + at_once, count)) for start in range(0, count, at_once))


def _table(x: Tensor, masks: Tensor) -> Tensor:
    """[B, C, H, W] -> [B * (H + 3) * (W + 3) * D, C / D]: a row a cell and deformable group, in a border of zeros.

    One row and column of zeros before, two behind, so that each place from -1 to the size has its four neighbours.
    """
    deform_groups = masks.shape[1] // 9
    # In fp32 at least: four products are summed.
    x = _at_least_fp32(x)
    rows = F.pad(x, (1, 2, 1, 2)).permute(0, 2, 3, 1).reshape(-1, x.shape[1] // deform_groups)
    return rows.contiguous()


def _at_least_fp32(tensor: Tensor) -> Tensor:
    return tensor if tensor.dtype == torch.float64 else tensor.float()


def _points(
    table: Tensor,
    offsets: Tensor,
    masks: Tensor,
    first_row: int,
    stride: int,
    groups: int,
    size: tuple[int, int],
    weighted_rows: Callable[[Tensor, Tensor, tuple[int, ...], tuple[Tensor, ...]], Tensor],
) -> Tensor:
    """Masked samples of the output rows from `first_row` on, [G, B * h * w, C / G * 9].

    Args:
        table: of `_table`.
        offsets, masks: of these rows alone.
        first_row: of the output.
        stride, groups: of the convolution.
        size: H, W of the map.
        weighted_rows: how four rows are summed.
    """
    batch, channels, rows, columns = masks.shape
    deform_groups = channels // 9
    height, width = size
    device = masks.device
    # Positions in fp32 at least: bf16 cannot tell neighbouring cells apart.
    offsets = _at_least_fp32(offsets)
    pairs = offsets.reshape(batch, deform_groups, 9, 2, rows, columns).permute(0, 4, 5, 2, 1, 3)  # [B, h, w, 9, D, 2]
    factors = masks.reshape(batch, deform_groups, 9, rows, columns).permute(0, 3, 4, 2, 1)  # [B, h, w, 9, D]
    kernel = torch.arange(9, device=device)
    base_y = (torch.arange(rows, device=device) + first_row)[:, None] * stride + kernel // 3 - 1  # [h, 9]
    base_x = torch.arange(columns, device=device)[:, None] * stride + kernel % 3 - 1  # [w, 9]
    y = (pairs[..., 0] + base_y[:, None, :, None]).clamp(-1, height)  # [B, h, w, 9, D]
    x = (pairs[..., 1] + base_x[:, :, None]).clamp(-1, width)
    # The second clamp keeps a position that is no number inside the table; its sample is no number either.
    top, left = (position.detach().floor().long().clamp(-1, end) for position, end in ((y, height), (x, width)))
    below, right = y - top, x - left
    line = (width + 3) * deform_groups
    images = torch.arange(batch, device=device)[:, None, None, None, None] * ((height + 3) * line)
    cells = images + (top + 1) * line + (left + 1) * deform_groups + torch.arange(deform_groups, device=device)
    shares = ((1 - below) * (1 - right), (1 - below) * right, below * (1 - right), below * right)
    steps = (0, deform_groups, line, line + deform_groups)
    flat_shares = tuple(share.to(table.dtype).reshape(-1) for share in shares)
    samples = weighted_rows(table, cells.reshape(-1), steps, flat_shares).mul_(factors.reshape(-1, 1))
    # [B h w * 9 * D, C / D] -> the order of the weights, channel by channel.
    places = batch * rows * columns
    return samples.reshape(places, 9, -1).transpose(1, 2).reshape(places, groups, -1).transpose(0, 1)


def _product(points: Tensor, weight: Tensor, masks: Tensor, channels_last: bool) -> Tensor:
    """The convolution: points [G, B * h * w, C / G * 9], weight [O, C / G, 3, 3] -> [B, O, h, w]."""
    batch, _, rows, columns = masks.shape
    kernels = weight.reshape(points.shape[0], weight.shape[0] // points.shape[0], -1)  # [G, O / G, C / G * 9]
    points = points.to(weight.dtype)
    # The operand that comes first decides on the memory format: reordering afterwards would cost more.
    if channels_last:
        out = torch.bmm(points, kernels.transpose(1, 2))  # [G, B * h * w, O / G]
        return out.transpose(0, 1).reshape(batch, rows, columns, -1).permute(0, 3, 1, 2)
    out = torch.bmm(kernels, points.transpose(1, 2))  # [G, O / G, B * h * w]
    return out.reshape(-1, batch, rows, columns).transpose(0, 1)


def _by_group(gradient: Tensor, groups: int, channels_last: bool) -> Tensor:
    """[B, O, h, w] -> [G, O / G, B * h * w]."""
    per_group = gradient.shape[1] // groups
    if channels_last:
        return gradient.permute(0, 2, 3, 1).reshape(-1, groups, per_group).permute(1, 2, 0)
    return gradient.transpose(0, 1).reshape(groups, per_group, -1)


def _weighted_rows(table: Tensor, cells: Tensor, steps: tuple[int, ...], shares: tuple[Tensor, ...]) -> Tensor:
    """Sums of four weighted rows: table [R, C], first row of each sum [P], steps from it, shares [P] each -> [P, C]."""
    total = table.index_select(0, cells).mul_(shares[0][:, None])
    for step, share in zip(steps[1:], shares[1:], strict=True):
        total.add_(table.index_select(0, cells + step).mul_(share[:, None]))
    return total


def _weighted_rows_fast(table: Tensor, cells: Tensor, steps: tuple[int, ...], shares: tuple[Tensor, ...]) -> Tensor:
    """The same but for the last bit, in one operation with a fast gradient."""
    rows = torch.stack([cells + step for step in steps], dim=-1)
    return F.embedding_bag(rows, table, per_sample_weights=torch.stack(shares, dim=-1), mode="sum")


@cache
def torchvision_operator() -> Callable[..., Tensor] | None:
    """torchvision's compiled `deform_conv2d`, or None where torchvision is missing or does not load.

    Its wheels do not load beside every build of PyTorch, and what they then raise differs; nothing imports it before
    the first deformable convolution.
    """
    if find_spec("torchvision") is None:
        return None
    try:
        import torchvision.ops  # noqa: F401 - registers the operators
    except Exception:
        return None
    operator: Callable[..., Tensor] | None = getattr(torch.ops.torchvision, "deform_conv2d", None)
    return operator


def with_torchvision(
    operator: Callable[..., Tensor],
    x: Tensor,
    offsets: Tensor,
    masks: Tensor,
    weight: Tensor,
    stride: int,
    groups: int,
) -> Tensor:
    """`deform_conv2d` by torchvision's operator, whose offsets and masks are packed as ours are.

    It reads the offset of kernel point k of deformable group g from channels 2 (9 g + k) (dy) and the next (dx), the
    mask from channel 9 g + k.
    """
    tensors = [_at_least_fp32(tensor) for tensor in (x, weight, offsets, masks)]
    bias = tensors[0].new_zeros(len(weight))
    once, twice = (1, 1), (stride, stride)
    out = operator(*tensors, bias, *twice, *once, *once, groups, masks.shape[1] // 9, True)
    return out.to(x.dtype)
