"""What the digits are written on: tinted paper with shading, ruling, stains and stray strokes."""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
from numpy.typing import NDArray

Canvas = NDArray[np.uint8]
_SHIFT = 3  # cv2 draws at eighths of a pixel


def background(rng: np.random.Generator, side: int) -> Canvas:
    """[side, side, 3] uint8 RGB, without any digit."""
    canvas = _paper(rng, side)
    if rng.random() < 0.45:
        _RULINGS[int(rng.integers(len(_RULINGS)))](canvas, rng)
    for _ in range(int(rng.integers(0, 5))):
        _stain(canvas, rng)
    for _ in range(int(rng.integers(0, 4))):
        _STROKES[int(rng.integers(len(_STROKES)))](canvas, rng)
    return canvas


def random_colour(rng: np.random.Generator) -> NDArray[np.float32]:
    """[3] RGB in 0..255; a third of them near grey."""
    colour = rng.uniform(0, 255, 3)
    if rng.random() < 0.35:
        colour = colour.mean() + rng.uniform(-8, 8, 3)
    return np.clip(colour, 0, 255).astype(np.float32)


def _paper(rng: np.random.Generator, side: int) -> Canvas:
    """A base colour varied by soft blotches, and by a gradient through the low-resolution field they come from."""
    base = random_colour(rng)
    if rng.random() < 0.6:  # most paper is bright
        base = 255 - (255 - base) * 0.35
    cells = int(rng.choice([2, 3, 5, 9, 17]))
    shade = rng.normal(0, rng.uniform(3, 26), (cells, cells, 1))
    tint = rng.normal(0, rng.uniform(0, 8), (cells, cells, 3))
    field = cv2.resize((base + shade + tint).astype(np.float32), (side, side), interpolation=cv2.INTER_CUBIC)
    field = np.clip(field, 0, 255)
    return np.ascontiguousarray(field.astype(np.uint8))


def _tint(canvas: Canvas, rng: np.random.Generator, strength: tuple[float, float]) -> tuple[float, ...]:
    """A colour between the paper's at a random place and any other."""
    y, x = rng.integers(canvas.shape[0]), rng.integers(canvas.shape[1])
    mix = rng.uniform(*strength)
    return tuple(float(value) for value in canvas[y, x] * (1 - mix) + random_colour(rng) * mix)


def _lines(canvas: Canvas, rng: np.random.Generator) -> None:
    """Ruled paper, slightly askew."""
    side, gap = canvas.shape[0], rng.uniform(12, 40)
    colour, lean, thickness = _tint(canvas, rng, (0.2, 0.7)), rng.uniform(-12, 12), int(rng.integers(1, 3))
    for y in np.arange(rng.uniform(-gap, 0), side + gap, gap):
        _polyline(canvas, np.array([[-8, y - lean], [side + 8, y + lean]]), colour, thickness)


def _grid(canvas: Canvas, rng: np.random.Generator) -> None:
    """Squared paper."""
    side, gap = canvas.shape[0], rng.uniform(14, 44)
    colour, lean = _tint(canvas, rng, (0.2, 0.6)), rng.uniform(-10, 10)
    for at in np.arange(rng.uniform(-gap, 0), side + gap, gap):
        _polyline(canvas, np.array([[-8, at - lean], [side + 8, at + lean]]), colour, 1)
        _polyline(canvas, np.array([[at + lean, -8], [at - lean, side + 8]]), colour, 1)


def _patches(canvas: Canvas, rng: np.random.Generator) -> None:
    """Coloured fields that end in the picture: labels, folds, shadows."""
    side = canvas.shape[0]
    for _ in range(int(rng.integers(1, 4))):
        centre, angle = rng.uniform(0, side, 2), rng.uniform(0, 180)
        corners = cv2.boxPoints((centre.tolist(), rng.uniform(60, 200, 2).tolist(), angle))
        colour = _tint(canvas, rng, (0.1, 0.5))
        cv2.fillConvexPoly(canvas, np.rint(corners * 8).astype(np.int32), colour, cv2.LINE_AA, _SHIFT)


def _stain(canvas: Canvas, rng: np.random.Generator) -> None:
    """A filled ellipse; filled, as an outline would be a 0."""
    centre, axes = rng.uniform(0, canvas.shape[0], 2), np.exp(rng.uniform(np.log(1.5), np.log(28), 2))
    middle, radii = (np.rint(pair * 8).astype(int).tolist() for pair in (centre, axes))
    colour = _tint(canvas, rng, (0.2, 0.8))
    cv2.ellipse(canvas, middle, radii, rng.uniform(0, 180), 0, 360, colour, -1, cv2.LINE_AA, _SHIFT)


def _long_line(canvas: Canvas, rng: np.random.Generator) -> None:
    """A line from border to border; a shorter one would be a 1."""
    side, angle = canvas.shape[0], rng.uniform(0, np.pi)
    middle = rng.uniform(0, side, 2)
    reach = 1.5 * side * np.array([np.cos(angle), np.sin(angle)])
    _polyline(canvas, np.stack([middle - reach, middle + reach]), _tint(canvas, rng, (0.3, 1)), int(rng.integers(1, 4)))


def _wave(canvas: Canvas, rng: np.random.Generator) -> None:
    """A long wavy stroke."""
    side, t = canvas.shape[0], np.linspace(0, 1, 48)
    angle, length, turns = rng.uniform(0, 2 * np.pi), rng.uniform(0.5, 1.4) * side, rng.uniform(1.5, 7)
    along = (t - 0.5) * length
    across = rng.uniform(3, 14) * np.sin(2 * np.pi * turns * t)
    cos, sin = np.cos(angle), np.sin(angle)
    points = np.stack([along * cos - across * sin, along * sin + across * cos], axis=1) + rng.uniform(0, side, 2)
    _polyline(canvas, points, _tint(canvas, rng, (0.3, 1)), int(rng.integers(1, 5)))


def _zigzag(canvas: Canvas, rng: np.random.Generator) -> None:
    """A scribble of straight strokes."""
    corners = int(rng.integers(6, 12))
    points = rng.uniform(0, canvas.shape[0], 2) + np.cumsum(rng.normal(0, rng.uniform(8, 22), (corners, 2)), axis=0)
    _polyline(canvas, points, _tint(canvas, rng, (0.3, 1)), int(rng.integers(1, 4)))


def _cross(canvas: Canvas, rng: np.random.Generator) -> None:
    """An x, + or * the size of a digit."""
    centre, size, turn = rng.uniform(0, canvas.shape[0], 2), rng.uniform(6, 30), rng.uniform(0, np.pi)
    colour, thickness, arms = _tint(canvas, rng, (0.4, 1)), int(rng.integers(1, 5)), int(rng.integers(2, 4))
    for arm in range(arms):
        angle = turn + np.pi * arm / arms
        reach = size * np.array([np.cos(angle), np.sin(angle)])
        _polyline(canvas, np.stack([centre - reach, centre + reach]), colour, thickness)


def _polyline(canvas: Canvas, points: NDArray[np.float64], colour: tuple[float, ...], thickness: int) -> None:
    """Stroke through [n, 2] x, y in pixels."""
    cv2.polylines(canvas, [np.rint(points * 8).astype(np.int32)], False, colour, thickness, cv2.LINE_AA, _SHIFT)


_RULINGS: tuple[Callable[[Canvas, np.random.Generator], None], ...] = (_lines, _grid, _patches)
_STROKES: tuple[Callable[[Canvas, np.random.Generator], None], ...] = (_long_line, _wave, _zigzag, _cross)
