"""From images to detections: `Detector` for pictures of any source, `postprocess` for dense predictions."""

from tood.inference.detector import Detector, PreparedImage
from tood.inference.devices import check_device, parse_device
from tood.inference.exported import engine_precision, engine_predictor, load_engine
from tood.inference.postprocess import Found, postprocess
from tood.inference.predictor import Network, Predictor, read_ahead
from tood.inference.sources import Source, SourceConfig, download, expand, is_many, is_url
from tood.inference.tile_merging import MergeConfig
from tood.inference.tiles import TileConfig, detect_in_tiles
from tood.weights import load_model

__all__ = [
    "Detector",
    "Found",
    "MergeConfig",
    "Network",
    "Predictor",
    "PreparedImage",
    "Source",
    "SourceConfig",
    "TileConfig",
    "check_device",
    "detect_in_tiles",
    "download",
    "engine_precision",
    "engine_predictor",
    "expand",
    "is_many",
    "is_url",
    "load_engine",
    "load_model",
    "parse_device",
    "postprocess",
    "read_ahead",
]
