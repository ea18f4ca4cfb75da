"""A small model and pictures that clusters look at."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from bright_square import save_picture
from tood.input import InputConfig
from tood.models import build_model
from tood.weights import save_weights
from tood.zoo import named_models


@pytest.fixture(scope="session")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    config = named_models()["tood_tiny"].config()
    model = build_model(replace(config, classes=2, input=InputConfig(short=64, long=64)))
    for layer in (model.head.classifier, model.head.classification_alignment[-1]):
        torch.nn.init.constant_(layer.bias, 1.0)
    path = tmp_path_factory.mktemp("run") / "best.safetensors"
    save_weights(path, model, ["cat", "dog"])
    return path


def photographs(folder: Path, count: int) -> Path:
    """So many pictures of noise, every seventh of them broken, in sub-folders."""
    random = np.random.default_rng(0)
    for number in range(count):
        path = folder / f"{number % 3}" / f"{number:04}.png"
        save_picture(path, random.integers(0, 255, (48 + number % 5, 64, 3), dtype=np.uint8))
        if number % 7 == 3:
            path.write_bytes(path.read_bytes()[:60])
    return folder
