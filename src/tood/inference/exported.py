"""Exported models behind the same predictor as networks of PyTorch."""

from __future__ import annotations

from pathlib import Path

import torch

from tood.choices import PredictionPrecision
from tood.engines import ENGINE_NAMES, Engine, open_exported
from tood.errors import ToodError
from tood.inference.predictor import Predictor
from tood.weights import locate_weights


def load_engine(path: str | Path, device: torch.device | None = None) -> Engine:
    """The exported model of a file, or of hf://OWNER/NAME/FILE.

    Raises:
        ToodError: if there is none, it was not written by `tood export`, or its engine is not installed.
    """
    return open_exported(locate_weights(path).path, device)


def engine_predictor(engine: Engine) -> Predictor:
    """What runs an exported model over batches of images."""
    description = engine.description
    return Predictor(engine, description.input, description.postprocess, torch.device("cpu"))


def engine_precision(engine: Engine, asked: PredictionPrecision) -> str:
    """What a file computes in, for people.

    Raises:
        ToodError: if another precision is asked for: it was settled when the file was written.
    """
    own = engine.description.precision
    if asked == "bf16":
        raise ToodError(f"the exported model computes in {own}: leave --precision out, or export it in another one")
    return f"{own} by {ENGINE_NAMES[engine.kind]}"
