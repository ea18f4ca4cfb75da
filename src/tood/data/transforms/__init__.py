"""What training does to an image and its boxes: each a frozen dataclass, called with a sample and a generator."""

from tood.data.transforms.colour import PhotometricJitter
from tood.data.transforms.geometry import (
    MultiScaleResize,
    RandomFlip,
    Resize,
    ScaleJitter,
    clip_boxes,
    fit_scale,
    flip,
    place,
    resize,
    resized_shape,
)
from tood.data.transforms.mosaic import Mosaic
from tood.data.transforms.pipeline import (
    AugmentConfig,
    build_transforms,
    canvas_shape,
    published_1x,
    published_2x,
    small_model,
)
from tood.data.transforms.sample import Compose, OneOf, Sample, Transform

__all__ = [
    "AugmentConfig",
    "Compose",
    "Mosaic",
    "MultiScaleResize",
    "OneOf",
    "PhotometricJitter",
    "RandomFlip",
    "Resize",
    "Sample",
    "ScaleJitter",
    "Transform",
    "build_transforms",
    "canvas_shape",
    "clip_boxes",
    "fit_scale",
    "flip",
    "place",
    "published_1x",
    "published_2x",
    "resize",
    "resized_shape",
    "small_model",
]
