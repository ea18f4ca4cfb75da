"""Whole pictures to a network's input as ONNX nodes: what `tood.input` does to them, and where they then lie."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from tood.engines import FixedInput
from tood.export.linear_scaling import FIRST_SHIFT, LAST_SHIFT, SECOND_SHIFT, WEIGHT_BITS
from tood.export.onnx_nodes import OnnxNodes
from tood.input import InputConfig


class Laid(NamedTuple):
    """Where pictures, all of one size, lie in a network's input; names of values.

    Attributes:
        images: [B, 3, h, w] float32, normalised and padded.
        offset: [4] float32, of the pictures' corner, x y x y in input pixels.
        scale: [4] float32, input pixels a picture's pixel, x y x y.
        window: [1, 4] float32, the picture itself in its own pixels: 0, 0, width, height.
        height, width: [1] int64 of the input.
    """

    images: str
    offset: str
    scale: str
    window: str
    height: str
    width: str


class _Axis(NamedTuple):
    """An axis: [1] int64 lengths in the picture, scaled, on the canvas, of the input; where the picture begins."""

    own: str
    scaled: str
    canvas: str
    padded: str
    before: str


def add_pictures(g: OnnxNodes, pictures: str, config: InputConfig) -> Laid:
    """Nodes that lay pictures [B, H, W, 3] uint8 RGB out, scale and normalise them."""
    rows, columns = _axes(g, pictures, config)
    if config.interpolation == "linear":
        pixels = g("Transpose", _linear(g, pictures, rows, columns), perm=[0, 3, 1, 2])
    else:
        pixels = _cubic(g, g("Transpose", pictures, perm=[0, 3, 1, 2]), rows, columns)
    mean, std, colour = config.mean, config.std, config.canvas_colour
    if config.channels == "bgr":
        pixels = g("Gather", pixels, g.integer([2, 1, 0]), axis=1)
        mean, std, colour = mean[::-1], std[::-1], colour[::-1]
    # Padding of a colour of its own is as the canvas; without one it is 0 to the network.
    ends = [axis.padded if config.pad is not None else axis.canvas for axis in (rows, columns)]
    if config.fit == "letterbox" or config.pad is not None:
        shade = g.reshape(g.real(colour), [3, 1, 1])
        pixels = g("Add", _padded(g, g("Sub", pixels, shade), rows, columns, ends), shade)
    pixels = g("Div", g("Sub", pixels, g.reshape(g.real(mean), [3, 1, 1])), g.reshape(g.real(std), [3, 1, 1]))
    if config.pad is None:
        down, across = (axis._replace(scaled=axis.canvas, before=g.integer([0])) for axis in (rows, columns))
        pixels = _padded(g, pixels, down, across, [rows.padded, columns.padded])
    scale = [g("Div", g.cast(axis.scaled, np.float64), g.cast(axis.own, np.float64)) for axis in (columns, rows)]
    before = [g.cast(axis.before, np.float32) for axis in (columns, rows)]
    size = [g.cast(axis.own, np.float32) for axis in (columns, rows)]
    window = g("Unsqueeze", g.join(g.real([0.0, 0.0]), *size), g.integer([0]))
    return Laid(
        pixels,
        g.join(*before, *before),
        g.cast(g.join(*scale, *scale), np.float32),
        window,
        rows.padded,
        columns.padded,
    )


def _axes(g: OnnxNodes, pictures: str, config: InputConfig) -> tuple[_Axis, _Axis]:
    """Rows and columns, as `InputConfig.geometry` has them."""
    own = [g.size(pictures, 1), g.size(pictures, 2)]
    if isinstance(config, FixedInput):
        limits = [g.integer([config.height]), g.integer([config.width])]
    else:
        wide = g("GreaterOrEqual", own[1], own[0])
        short, long = g.integer([config.short]), g.integer([config.long])
        limits = [g("Where", wide, short, long), g("Where", wide, long, short)]
    if config.fit == "stretch":
        scaled = limits
    else:
        # The limits and the sides are ordered alike: so the longer one meets the longer one.
        factors = [
            g("Div", g.cast(limit, np.float64), g.cast(side, np.float64))
            for limit, side in zip(limits, own, strict=True)
        ]
        scale = g("Min", *factors)
        half, one = g.constant(0.5, np.float64), g.integer([1])
        rounded = [g("Floor", g("Add", g("Mul", g.cast(side, np.float64), scale), half)) for side in own]
        scaled = [g("Max", g.cast(side, np.int64), one) for side in rounded]
    canvas = scaled if config.fit == "keep_ratio" else limits
    before = [g.integer([0]), g.integer([0])]
    if config.fit == "letterbox" and config.letterbox == "middle":
        before = [g("Div", g("Sub", a, b), g.integer([2])) for a, b in zip(canvas, scaled, strict=True)]
    if isinstance(config, FixedInput):
        padded = limits
    else:
        divisor = g.integer([config.divisor])
        less = g.integer([config.divisor - 1])
        padded = [g("Mul", g("Div", g("Add", side, less), divisor), divisor) for side in canvas]
    rows, columns = (_Axis(*parts) for parts in zip(own, scaled, canvas, padded, before, strict=True))
    return rows, columns


def _padded(g: OnnxNodes, pixels: str, rows: _Axis, columns: _Axis, ends: list[str]) -> str:
    """Pixels [B, C, h, w] with zeros around, so that they begin where the axes say and end at `ends`."""
    after = [g("Sub", g("Sub", end, axis.scaled), axis.before) for end, axis in zip(ends, (rows, columns), strict=True)]
    none = g.integer([0, 0])
    return g("Pad", pixels, g.join(none, rows.before, columns.before, none, *after), g.real(0.0))


def _linear(g: OnnxNodes, pictures: str, rows: _Axis, columns: _Axis) -> str:
    """[B, H, W, 3] uint8 -> [B, h, w, 3] float32 of whole numbers, the same as OpenCV's."""
    top, below, of_top, of_below = _places(g, rows, cut_weights=False)
    left, right, of_left, of_right = _places(g, columns, cut_weights=True)
    of_top, of_below = (g.reshape(weight, [-1, 1, 1]) for weight in (of_top, of_below))
    of_left, of_right = (g.reshape(weight, [-1, 1]) for weight in (of_left, of_right))
    sums = []
    for place, weight in ((top, of_top), (below, of_below)):
        line = g("Gather", pictures, place, axis=1)
        near, far = (g.cast(g("Gather", line, column, axis=2), np.int32) for column in (left, right))
        across = g("Add", g("Mul", near, of_left), g("Mul", far, of_right))
        sums.append(_shifted(g, g("Mul", _shifted(g, across, FIRST_SHIFT), weight), SECOND_SHIFT))
    rounded = g("Add", g("Add", *sums), g.constant(1 << (LAST_SHIFT - 1), np.int32))
    return g.cast(_shifted(g, rounded, LAST_SHIFT), np.float32)


def _shifted(g: OnnxNodes, values: str, bits: int) -> str:
    """Values from 0 up; ONNX's own shift takes no signed numbers."""
    return g("Div", values, g.constant(1 << bits, np.int32))


def _places(g: OnnxNodes, axis: _Axis, *, cut_weights: bool) -> tuple[str, str, str, str]:
    """For each scaled place the two of the picture that it is computed from, and their weights, int32.

    Args:
        axis: rows or columns.
        cut_weights: whether of two places of which one is beyond the border the other has all the weight.
    """
    count = g("Squeeze", axis.scaled)
    numbers = g.cast(g("Range", g.integer(0), count, g.integer(1)), np.float64)
    half = g.constant(0.5, np.float64)
    step = g("Div", g.cast(axis.own, np.float64), g.cast(axis.scaled, np.float64))
    exact = g.cast(g("Sub", g("Mul", g("Add", numbers, half), step), half), np.float32)
    floor = g("Floor", exact)
    last = g.cast(g("Sub", axis.own, g.integer([1])), np.float32)
    share = g("Sub", exact, floor)
    if cut_weights:
        outside = g("Or", g("Less", floor, g.real(0.0)), g("GreaterOrEqual", floor, last))
        share = g("Where", outside, g.real(0.0), share)
    first, second = (
        g.cast(g("Min", g("Max", place, g.real(0.0)), last), np.int64)
        for place in (floor, g("Add", floor, g.real(1.0)))
    )
    of_first, of_second = (
        g.cast(g("Round", g("Mul", part, g.real(1 << WEIGHT_BITS))), np.int32)
        for part in (g("Sub", g.real(1.0), share), share)
    )
    return first, second, of_first, of_second


def _cubic(g: OnnxNodes, pictures: str, rows: _Axis, columns: _Axis) -> str:
    """[B, 3, H, W] uint8 -> [B, 3, h, w] float32 of whole numbers, OpenCV's but for rounding."""
    sizes = g.join(g.size(pictures, 0), g.integer([3]), rows.scaled, columns.scaled)
    pixels = g(
        "Resize",
        g.cast(pictures, np.float32),
        "",
        "",
        sizes,
        mode="cubic",
        coordinate_transformation_mode="half_pixel",
        cubic_coeff_a=-0.75,
    )
    return g("Clip", g("Round", pixels), g.real(0.0), g.real(255.0))
