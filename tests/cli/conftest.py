"""What several tests of commands share."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tood.input import InputConfig
from tood.models import build_model
from tood.weights import save_weights
from tood.zoo import named_models


@pytest.fixture(scope="session")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    config = named_models()["tood_tiny"].config()
    model = build_model(replace(config, classes=2, input=InputConfig(short=64, long=64)))
    # An untrained network is sure of nothing: lift its scores over the thresholds.
    for layer in (model.head.classifier, model.head.classification_alignment[-1]):
        torch.nn.init.constant_(layer.bias, 1.0)
    path = tmp_path_factory.mktemp("run") / "best.safetensors"
    save_weights(path, model, ["cat", "dog"])
    return path
