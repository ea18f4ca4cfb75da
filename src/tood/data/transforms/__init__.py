"""What training does to an image and its boxes: each a frozen dataclass, called with a sample and a generator."""

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
from tood.data.transforms.mosaic import Mosaic
from tood.data.transforms.pipeline import Circumstances, build_transforms, canvas_shape
from tood.data.transforms.sample import Compose, OneOf, Sample, Transform
from tood.data.transforms.ssd import Distort, Expand, SampledCrop, Stretch
from tood.data.transforms.steps import (
    AugmentConfig,
    AugmentStep,
    CanvasStep,
    CropStep,
    DistortStep,
    ExpandStep,
    FitStep,
    FlipStep,
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
