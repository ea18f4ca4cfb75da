"""Which model is trained where none is named, and how that is told."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from tood.cli import app
from tood.models import build_model
from tood.models.backbones.imagenet import EFFICIENTNET_LITE_FILES
from tood.training import default_model
from tood.weights import save_weights
from tood.zoo import named_model
from training.pictures import coco_folder


@pytest.fixture
def without_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    files = {size: replace(file, package="no_such_package") for size, file in EFFICIENTNET_LITE_FILES.items()}
    monkeypatch.setattr("tood.models.backbones.efficientnet_lite.EFFICIENTNET_LITE_FILES", files)


@pytest.mark.parametrize("start_from", [None, "imagenet"])
def test_the_pretrained_one_where_its_weights_are(start_from: str | None) -> None:
    assert default_model(start_from).name == "tood_lite0"


@pytest.mark.usefixtures("without_weights")
def test_the_plain_one_where_they_are_not() -> None:
    choice = default_model()
    assert choice.name == "tood_tiny"
    assert "pip install 'tood[small]'" in choice.why


def test_from_scratch_the_plain_one() -> None:
    assert default_model("scratch").name == "tood_tiny"


@pytest.mark.parametrize("name", ["tood_tiny", "tood_lite0", "tood_lite0_320", "tood_r18_fpn"])
def test_fine_tuning_takes_the_model_that_the_weights_are_of(name: str, tmp_path: Path) -> None:
    config = replace(named_model(name).config(), classes=3)
    file = tmp_path / "best.safetensors"
    save_weights(file, build_model(config), ("a", "b", "c"))
    assert default_model(str(file)).name == name
    assert default_model(str(tmp_path)).name == name  # the run's folder
    assert default_model("tood_r50_fpn_1x").name == "tood_r50_fpn_1x"


def test_weights_that_tell_nothing_are_left_to_the_run() -> None:
    assert default_model("nowhere.pth").name == "tood_tiny"


@pytest.mark.usefixtures("without_weights")
def test_the_command_tells_what_was_chosen_and_why(tmp_path: Path) -> None:
    options = ["--size", "32", "--workers", "0", "--batch-size", "2", "--device", "cpu", "--epochs", "1"]
    data, out = coco_folder(tmp_path / "data"), tmp_path / "run"
    result = CliRunner().invoke(app, ["train", "--data", str(data), "--out", str(out), *options])
    assert result.exit_code == 0, result.output
    told = " ".join(result.output.split())
    assert "model: tood_tiny was chosen, as what tood_lite0 knows of photographs is not installed" in told
    named = CliRunner().invoke(
        app, ["train", "--model", "tood_tiny", "--data", str(data), "--out", str(tmp_path / "other"), *options]
    )
    assert "was chosen" not in named.output
