"""Whole pictures to a network's input as operations of a PyTorch program: what `tood.input` does to them."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from tood.engines import FixedInput
from tood.export.linear_scaling import FIRST_SHIFT, LAST_SHIFT, SECOND_SHIFT, WEIGHT_BITS
from tood.input import InputConfig


class Laid(NamedTuple):
    """Where pictures, all of one size, lie in a network's input.

    Attributes:
        images: [B, 3, h, w] float32, normalised and padded.
        offset: [4] float32, of the pictures' corner, x y x y in input pixels.
        scale: [4] float32, input pixels a picture's pixel, x y x y.
        window: [1, 4] float32, the picture itself in its own pixels: 0, 0, width, height.
    """

    images: Tensor
    offset: Tensor
    scale: Tensor
    window: Tensor


class _Axis(NamedTuple):
    """An axis: lengths in the picture, scaled, on the canvas, of the input; where the picture begins."""

    own: int
    scaled: int
    canvas: int
    padded: int
    before: int


def laid_pictures(pictures: Tensor, config: InputConfig) -> Laid:
    """Pictures [B, H, W, 3] uint8 RGB laid out, scaled and normalised."""
    rows, columns = _axes(pictures.shape[1], pictures.shape[2], config)
    if config.interpolation == "linear":
        pixels = _linear(pictures, rows, columns).permute(0, 3, 1, 2)
    else:
        pixels = _cubic(pictures.permute(0, 3, 1, 2), rows, columns)
    mean, std, colour = (
        torch.tensor(values)[:, None, None] for values in (config.mean, config.std, config.canvas_colour)
    )
    # Padding of a colour of its own is as the canvas; without one it is 0 to the network.
    ends = [axis.padded if config.pad is not None else axis.canvas for axis in (rows, columns)]
    if config.fit == "letterbox" or config.pad is not None:
        pixels = _padded(pixels - colour, rows, columns, ends) + colour
    pixels = (pixels - mean) / std
    if config.channels == "bgr":
        pixels = pixels.flip(1)
    if config.pad is None:
        down, across = (axis._replace(scaled=axis.canvas, before=0) for axis in (rows, columns))
        pixels = _padded(pixels, down, across, [rows.padded, columns.padded])
    sides = torch.stack([_number(axis.own) for axis in (columns, rows)])
    scale = torch.stack([_number(axis.scaled) for axis in (columns, rows)]) / sides
    before = torch.stack([_number(axis.before) for axis in (columns, rows)])
    window = torch.cat([torch.zeros(2), sides.float()])[None]
    return Laid(pixels, before.float().repeat(2), scale.float().repeat(2), window)


def _axes(height: int, width: int, config: InputConfig) -> tuple[_Axis, _Axis]:
    """Rows and columns, as `InputConfig.geometry` has them."""
    own = torch.stack([_number(height), _number(width)])
    if isinstance(config, FixedInput):
        limits = torch.tensor([config.height, config.width])
    else:
        wide = torch.tensor([config.short, config.long])
        limits = torch.where(own[1] >= own[0], wide, wide.flip(0))
    # The limits and the sides are ordered alike: so the longer one meets the longer one.
    fitted = (own * (limits / own).min() + 0.5).floor().long().clamp(min=1)
    scaled = limits if config.fit == "stretch" else fitted
    scaled_sides = _lengths(scaled)
    if config.fit == "keep_ratio":
        canvas, canvas_sides = scaled, scaled_sides
    else:
        canvas, canvas_sides = limits, _lengths(limits)
    if isinstance(config, FixedInput):
        padded_sides = [config.height, config.width]
    else:
        padded_sides = whole_divisors(canvas, config.divisor)
    middle = config.fit == "letterbox" and config.letterbox == "middle"
    rows, columns = (
        _Axis(side, scaled, canvas, padded, (canvas - scaled) // 2 if middle else 0)
        for side, scaled, canvas, padded in zip((height, width), scaled_sides, canvas_sides, padded_sides, strict=True)
    )
    return rows, columns


def whole_divisors(sides: Tensor, divisor: int) -> list[int]:
    """Height and width [2] rounded up to whole divisors, which the exporter then knows to be such and nothing more.

    So a network's graph for any size has no case of its own for maps of one row.
    """
    return [number * divisor for number in _lengths((sides + divisor - 1) // divisor)]


def _lengths(sides: Tensor) -> list[int]:
    """Height and width as numbers, of which an exporter may know no more than that they are above 0."""
    lengths: list[int] = sides.tolist()
    for length in lengths:
        torch._check(length >= 1)  # type: ignore[no-untyped-call]
    return lengths


def _number(length: int) -> Tensor:
    return torch.scalar_tensor(length, dtype=torch.float64)


def _padded(pixels: Tensor, rows: _Axis, columns: _Axis, ends: list[int]) -> Tensor:
    """Pixels [B, C, h, w] with zeros around, so that they begin where the axes say and end at `ends`."""
    below, right = (end - axis.scaled - axis.before for end, axis in zip(ends, (rows, columns), strict=True))
    return F.pad(pixels, (columns.before, right, rows.before, below))


def _linear(pictures: Tensor, rows: _Axis, columns: _Axis) -> Tensor:
    """[B, H, W, 3] uint8 -> [B, h, w, 3] float32 of whole numbers, the same as OpenCV's."""
    top, below, of_top, of_below = _places(rows, cut_weights=False)
    left, right, of_left, of_right = _places(columns, cut_weights=True)
    sums: list[Tensor] = []
    for place, weight in ((top, of_top), (below, of_below)):
        line = pictures[:, place]
        across = line[:, :, left].int() * of_left[:, None] + line[:, :, right].int() * of_right[:, None]
        sums.append(((across >> FIRST_SHIFT) * weight[:, None, None]) >> SECOND_SHIFT)
    return ((sums[0] + sums[1] + (1 << (LAST_SHIFT - 1))) >> LAST_SHIFT).float()


def _places(axis: _Axis, *, cut_weights: bool) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """For each scaled place the two of the picture that it is computed from, and their weights, int32.

    Args:
        axis: rows or columns.
        cut_weights: whether of two places of which one is beyond the border the other has all the weight.
    """
    step = _number(axis.own) / _number(axis.scaled)
    exact = ((torch.arange(axis.scaled, dtype=torch.float64) + 0.5) * step - 0.5).float()
    floor, last = exact.floor(), axis.own - 1
    share = exact - floor
    if cut_weights:
        share = torch.where((floor < 0) | (floor >= last), 0.0, share)
    first, second = (place.long().clamp(min=0, max=last) for place in (floor, floor + 1))
    of_first, of_second = ((part * (1 << WEIGHT_BITS)).round().int() for part in (1 - share, share))
    return first, second, of_first, of_second


def _cubic(pictures: Tensor, rows: _Axis, columns: _Axis) -> Tensor:
    """[B, 3, H, W] uint8 -> [B, 3, h, w] float32 of whole numbers, OpenCV's but for rounding."""
    pixels = F.interpolate(pictures.float(), (rows.scaled, columns.scaled), mode="bicubic", align_corners=False)
    return pixels.round().clamp(0, 255)
