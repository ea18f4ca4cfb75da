"""The contract of a picture and a network: fit, padding and colours, and boxes there and back."""

from tood.input.config import Fit, InputConfig, Interpolation, fitting_scale, scaled_size
from tood.input.geometry import Geometry
from tood.input.normalise import normalise, padded_sizes
from tood.input.prepare import laid_out, prepare, stacked

__all__ = [
    "Fit",
    "Geometry",
    "InputConfig",
    "Interpolation",
    "fitting_scale",
    "laid_out",
    "normalise",
    "padded_sizes",
    "prepare",
    "scaled_size",
    "stacked",
]
