"""Transforms that change colours and leave the boxes alone."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import cv2
import numpy as np
from numpy.typing import NDArray

from tood.data.transforms.sample import Sample

_LUMA = np.array([0.299, 0.587, 0.114])


@dataclass(frozen=True)
class PhotometricJitter:
    """Random brightness, contrast, saturation and hue.

    All four are affine in RGB, so they go over the image as one 3x4 matrix in a single pass on uint8.

    Attributes:
        brightness: largest shift, of 255.
        contrast: the factor about mid-grey is drawn from 1 -/+ this.
        saturation: the factor about the pixel's own grey is drawn from 1 -/+ this.
        hue: largest turn about the grey axis, degrees.
        probability: of each of the four, on its own.
    """

    brightness: float = 32.0
    contrast: float = 0.5
    saturation: float = 0.5
    hue: float = 18.0
    probability: float = 0.5

    @staticmethod
    def of_strength(strength: float) -> PhotometricJitter:
        """The usual jitter of SSD and its successors at 1, none at 0."""
        return PhotometricJitter(32.0 * strength, min(0.5 * strength, 0.95), min(0.5 * strength, 1.0), 18.0 * strength)

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:
        # Drawn whether used or not: how many numbers a transform takes must not depend on their values.
        used = rng.random(4) < self.probability
        drawn = np.where(used, rng.uniform(-1, 1, 4), 0.0)
        if not used.any():
            return sample
        matrix = colour_matrix(
            shift=self.brightness * drawn[0],
            contrast=1 + self.contrast * drawn[1],
            saturation=1 + self.saturation * drawn[2],
            hue=self.hue * drawn[3],
        )
        image: NDArray[np.uint8] = cv2.transform(sample.image, matrix)
        return replace(sample, image=image)


def colour_matrix(shift: float, contrast: float, saturation: float, hue: float) -> NDArray[np.float64]:
    """[3, 4] affine map of RGB in 0..255: hue turned by degrees, then saturation, contrast about 127.5, shift.

    Greys stay grey under any hue and saturation.
    """
    turn = math.radians(hue)
    cos, sin = math.cos(turn), math.sin(turn) / math.sqrt(3)
    third = (1 - cos) / 3
    axis_turn = np.full((3, 3), third) + np.eye(3) * cos + sin * np.array([[0, -1, 1], [1, 0, -1], [-1, 1, 0]])
    saturate = saturation * np.eye(3) + (1 - saturation) * _LUMA[None]
    linear = contrast * saturate @ axis_turn
    return np.concatenate([linear, np.full((3, 1), 127.5 * (1 - contrast) + shift)], axis=1)
