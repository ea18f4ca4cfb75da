"""What training does to an image and its boxes: each a frozen dataclass, called with a sample and a generator."""

from tood.data.transforms.augment import AugmentConfig
from tood.data.transforms.colour import PhotometricJitter
from tood.data.transforms.geometry import (
    MultiScaleResize,
    RandomFlip,
    Resize,
    ScaleJitter,
    clip_boxes,
    flip,
    place,
    resize,
)
from tood.data.transforms.mosaic import MixUp, Mosaic
from tood.data.transforms.pipeline import Circumstances, build_transforms, canvas_shape
from tood.data.transforms.sample import Compose, OneOf, Sample, Sometimes, Transform
from tood.data.transforms.ssd import Distort, Expand, SampledCrop, Stretch
from tood.data.transforms.steps import (
    AugmentStep,
    CanvasStep,
    CropStep,
    DistortStep,
    ExpandStep,
    FitStep,
    FlipStep,
    MixUpStep,
    MosaicStep,
    PhotometricStep,
    StretchStep,
)

__all__ = [
    "AugmentConfig",
    "AugmentStep",
    "CanvasStep",
    "Circumstances",
    "Compose",
    "CropStep",
    "Distort",
    "DistortStep",
    "Expand",
    "ExpandStep",
    "FitStep",
    "FlipStep",
    "MixUp",
    "MixUpStep",
    "Mosaic",
    "MosaicStep",
    "MultiScaleResize",
    "OneOf",
    "PhotometricJitter",
    "PhotometricStep",
    "RandomFlip",
    "Resize",
    "Sample",
    "SampledCrop",
    "ScaleJitter",
    "Sometimes",
    "Stretch",
    "StretchStep",
    "Transform",
    "build_transforms",
    "canvas_shape",
    "clip_boxes",
    "flip",
    "place",
    "resize",
]
