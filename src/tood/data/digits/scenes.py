"""Cluttered scenes of handwritten digits with exactly tight boxes."""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from tood.data.digits.backgrounds import background, random_colour
from tood.data.digits.scans import Scans

_BORDER = 2  # empty cells around a scan, for the interpolation to fade out in
_PLACES_TRIED = 16
_NO_DIGIT = -1
_MEASURING_SCALE = 4.0  # pixels a cell


@dataclass(frozen=True)
class SceneConfig:
    """What a scene holds.

    Attributes:
        side: of the square scene, pixels.
        fewest, most: digits in a scene, uniform between, both included.
        smallest, largest: every side of every box lies between, in pixels; the sides' geometric mean is drawn
            log-uniformly; where a digit finds no room it is tried again smaller.
        min_visible: fraction of a digit's ink that no later digit may cover further.
        max_overlap: two boxes share at most this fraction of the smaller one.
        max_turn: rotation either way, degrees.
        min_contrast: distance in RGB between ink and what it is written on, of 442.
        noise: largest standard deviation of the grain over the whole scene, of 255.
    """

    side: int = 256
    fewest: int = 8
    most: int = 18
    smallest: int = 20
    largest: int = 110
    min_visible: float = 0.8
    max_overlap: float = 0.2
    max_turn: float = 8.0
    min_contrast: float = 150.0
    noise: float = 6.0

    def __post_init__(self) -> None:
        if not 1 <= self.fewest <= self.most:
            raise ValueError(f"fewest..most is {self.fewest}..{self.most}")
        if not 8 <= self.smallest < self.largest <= self.side:
            raise ValueError(f"smallest..largest is {self.smallest}..{self.largest} in a scene of {self.side} pixels")


@dataclass(frozen=True, eq=False)
class Scene:
    """A picture with its ground truth.

    Attributes:
        image: [side, side, 3] uint8 RGB.
        boxes: [G, 4] int64, x1 y1 x2 y2 in pixels: just the ink, also where a later digit covers it.
        labels: [G] int64, the digit.
    """

    image: NDArray[np.uint8]
    boxes: NDArray[np.int64]
    labels: NDArray[np.int64]


def render_scene(scans: Scans, rng: np.random.Generator, config: SceneConfig | None = None) -> Scene:
    """A scene of digits drawn from `scans`, the ten equally often; the same generator state gives the same scene."""
    return _Composition(rng, config or SceneConfig()).compose(scans)


class _Composition:
    """A scene while it is written, digit by digit."""

    def __init__(self, rng: np.random.Generator, config: SceneConfig) -> None:
        self.rng, self.config = rng, config
        self.grey = rng.random() < 0.2
        self.canvas = background(rng, config.side)
        if self.grey:
            self.canvas = cv2.cvtColor(cv2.cvtColor(self.canvas, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
        self.owner = np.full((config.side, config.side), _NO_DIGIT, dtype=np.int64)  # topmost digit of each pixel
        self.boxes = np.zeros((0, 4), dtype=np.int64)
        self.areas = np.zeros(0, dtype=np.int64)  # pixels of ink of each digit
        self.colours = np.zeros((0, 3), dtype=np.float32)
        self.visible = np.zeros(0, dtype=np.int64)  # pixels of ink that no other digit covers

    def compose(self, scans: Scans) -> Scene:
        rng, config = self.rng, self.config
        count = int(rng.integers(config.fewest, config.most, endpoint=True))
        sizes = np.exp(rng.uniform(np.log(config.smallest), np.log(config.largest), count))
        # The large first, roughly: they find room, and mostly it is they that are covered.
        sizes = sizes[np.argsort(-sizes * np.exp(rng.normal(0, 0.3, count)))]
        by_digit = [np.flatnonzero(scans.labels == digit) for digit in range(10)]
        present = [members for members in by_digit if len(members)]
        labels = []
        for size in sizes:
            members = present[int(rng.integers(len(present)))]
            chosen = int(members[rng.integers(len(members))])
            if self._write(scans.pixels[chosen], float(size)):
                labels.append(int(scans.labels[chosen]))
        return Scene(self._finish(), self.boxes, np.array(labels, dtype=np.int64))

    def _write(self, scan: NDArray[np.uint8], size: float) -> bool:
        """Write one digit, smaller if there is no room for it; False in the rare case that there is none at all."""
        while True:
            ink = _ink(scan, size, self.config, self.rng)
            for _ in range(_PLACES_TRIED):
                limit = np.array(self.owner.shape) - ink.shape
                y, x = self.rng.integers(0, limit, endpoint=True).tolist()
                if self._fits(ink, y, x):
                    self._put(ink, y, x)
                    return True
            if size <= self.config.smallest:
                return False
            size = max(size * 0.8, self.config.smallest)

    def _fits(self, ink: NDArray[np.float32], y: int, x: int) -> bool:
        height, width = ink.shape
        smaller = np.minimum((self.boxes[:, 2:] - self.boxes[:, :2]).prod(axis=1), height * width)
        if (self._shared(ink, y, x) > self.config.max_overlap * smaller).any():
            return False
        left = self.visible - self._covered(ink, y, x)
        return bool((left >= self.config.min_visible * self.areas).all())

    def _shared(self, ink: NDArray[np.float32], y: int, x: int) -> NDArray[np.int64]:
        """Square pixels that each earlier box shares with this one."""
        ends = np.array([x + ink.shape[1], y + ink.shape[0]])
        sides = np.minimum(self.boxes[:, 2:], ends) - np.maximum(self.boxes[:, :2], [x, y])
        shared: NDArray[np.int64] = sides.clip(0).prod(axis=1)
        return shared

    def _covered(self, ink: NDArray[np.float32], y: int, x: int) -> NDArray[np.int64]:
        """Pixels of each earlier digit that this ink would newly cover."""
        owners = self.owner[y : y + ink.shape[0], x : x + ink.shape[1]][ink >= 0.5]
        return np.bincount(owners[owners != _NO_DIGIT], minlength=len(self.areas))

    def _put(self, ink: NDArray[np.float32], y: int, x: int) -> None:
        height, width = ink.shape
        solid = ink >= 0.5
        under = self.canvas[y : y + height, x : x + width]
        # Both the paper and the digits it may touch must stand out from it.
        rivals = np.concatenate([under[solid].mean(axis=0)[None], self.colours[self._shared(ink, y, x) > 0]])
        colour = self._ink_colour(rivals.astype(np.float32))
        opacity = ink[:, :, None] * np.float32(self.rng.uniform(0.85, 1))
        under[:] = np.rint(under + (colour - under) * opacity)
        self.colours = np.concatenate([self.colours, colour[None]])
        self.visible = np.append(self.visible - self._covered(ink, y, x), solid.sum())
        self.owner[y : y + height, x : x + width][solid] = len(self.areas)
        self.areas = np.append(self.areas, solid.sum())
        self.boxes = np.concatenate([self.boxes, [[x, y, x + width, y + height]]])

    def _ink_colour(self, rivals: NDArray[np.float32]) -> NDArray[np.float32]:
        """[3] the first of twelve random colours that stands out from all of [n, 3]; the farthest if none does."""
        best: NDArray[np.float32] = rivals[0]
        farthest = -1.0
        for _ in range(12):
            colour = random_colour(self.rng)
            if self.grey:
                colour = np.full(3, colour.mean(), dtype=np.float32)
            distance = float(np.sqrt(((rivals - colour) ** 2).sum(axis=1).min()))
            if distance > farthest:
                best, farthest = colour, distance
            if distance >= self.config.min_contrast:
                break
        return best

    def _finish(self) -> NDArray[np.uint8]:
        """Blur a little, sometimes; grain, always."""
        rng, image = self.rng, self.canvas
        if rng.random() < 0.3:
            image = cv2.GaussianBlur(image, (3, 3), float(rng.uniform(0.4, 0.8)))
        deviation = rng.uniform(0, self.config.noise)
        grain = rng.integers(0, 256, (*image.shape[:2], 1 if self.grey else 3), dtype=np.uint8)
        # Uniform over 0..255 has a standard deviation of 73.9 about 127.5.
        shift = (np.arange(256) - 127.5) * deviation / 73.9
        noisy: NDArray[np.uint8] = np.clip(image + np.rint(shift).astype(np.int16)[grain], 0, 255).astype(np.uint8)
        return noisy


def _ink(scan: NDArray[np.uint8], size: float, config: SceneConfig, rng: np.random.Generator) -> NDArray[np.float32]:
    """A scan written large: [h, w] opacity 0..1, cut exactly to where it is at least 0.5, sides about `size`."""
    turn, shear = np.deg2rad(rng.uniform(-config.max_turn, config.max_turn)), rng.uniform(-0.2, 0.2)
    stretch = np.exp(rng.uniform(-0.15, 0.15))
    cos, sin = np.cos(turn), np.sin(turn)
    shape = np.array([[cos, -sin], [sin, cos]]) @ np.array([[stretch, shear], [0, 1 / stretch]])
    threshold = rng.uniform(0.36, 0.54)  # the lower, the broader the pen
    source = np.pad(scan, _BORDER).astype(np.float32) / np.float32(16)
    scale = _MEASURING_SCALE
    # The first writing only measures the ink, the second has the wanted size; more where that passes the limits.
    for _ in range(4):
        ink = _warp(source, shape * scale, threshold)
        rows, columns = np.flatnonzero((ink >= 0.5).any(axis=1)), np.flatnonzero((ink >= 0.5).any(axis=0))
        ink = ink[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        shorter, longer = min(ink.shape), max(ink.shape)
        if scale != _MEASURING_SCALE and config.smallest <= shorter and longer <= config.largest:
            break
        # A margin of half a pixel, as the sides come out whole.
        wanted = max(size / math.sqrt(shorter * longer), (config.smallest + 0.5) / shorter)
        scale *= min(wanted, (config.largest - 0.5) / longer)
    return ink


def _warp(source: NDArray[np.float32], matrix: NDArray[np.float64], threshold: float) -> NDArray[np.float32]:
    """[h, w] opacity of the scan under a linear map of cells to pixels: smoothly enlarged, then cut to a stroke."""
    side = source.shape[0]
    corners = np.array([[0, 0], [side, 0], [0, side], [side, side]]) @ matrix.T
    low, high = corners.min(axis=0), corners.max(axis=0)
    width, height = (int(extent) for extent in np.ceil(high - low))
    # Pixel and cell centres lie at halves.
    offset = matrix @ [0.5, 0.5] - low - 0.5
    ink = cv2.warpAffine(source, np.column_stack([matrix, offset]), (width, height), flags=cv2.INTER_CUBIC)
    # The edge is as wide as it would be from a finer scan: about a pixel and a half.
    steepness = max(4.0, 0.35 * float(np.sqrt(abs(np.linalg.det(matrix)))))
    opacity: NDArray[np.float32] = np.clip((ink - threshold) * steepness + 0.5, 0, 1)
    return opacity
