"""Detectors behind HTTP: `Service` takes pictures and answers each, `serve` runs it (extra `serve`)."""

from tood.serving.app import create_app
from tood.serving.config import BatchConfig, Limits, ServeConfig
from tood.serving.keys import read_keys
from tood.serving.log import JsonLog
from tood.serving.served_model import ModelSource, model_sources
from tood.serving.server import listen, serve
from tood.serving.service import Service

__all__ = [
    "BatchConfig",
    "JsonLog",
    "Limits",
    "ModelSource",
    "ServeConfig",
    "Service",
    "create_app",
    "listen",
    "model_sources",
    "read_keys",
    "serve",
]
