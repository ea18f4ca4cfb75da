"""Weight files: published ones by name, kept in a cache; every layout read without running it, and written."""

from tood.weights.cache import FetchConfig, cache_folder, cache_path, fetch
from tood.weights.checkpoint import Checkpoint, read_weights_file
from tood.weights.imagenet import load_imagenet
from tood.weights.locate import LocatedWeights, load_model, locate_weights
from tood.weights.model_file import (
    describe_architecture,
    export_weights,
    import_weights,
    initialise,
    load_detector_file,
    network_of,
)
from tood.weights.published import HostedFile, detector_weights, imagenet_weights
from tood.weights.push import PushConfig, push_weights
from tood.weights.safetensors_file import load_weights, recorded_figures, save_weights

__all__ = [
    "Checkpoint",
    "FetchConfig",
    "HostedFile",
    "LocatedWeights",
    "PushConfig",
    "cache_folder",
    "cache_path",
    "describe_architecture",
    "detector_weights",
    "export_weights",
    "fetch",
    "imagenet_weights",
    "import_weights",
    "initialise",
    "load_detector_file",
    "load_imagenet",
    "load_model",
    "load_weights",
    "locate_weights",
    "network_of",
    "push_weights",
    "read_weights_file",
    "recorded_figures",
    "save_weights",
]
