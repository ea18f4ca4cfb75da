"""Models called by name from end to end: the file comes from a server on the loopback interface."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType

import numpy as np
import pytest
import torch
from typer.testing import CliRunner, Result

from bright_square import picture, save_picture
from tood import configuration
from tood.cli import app
from tood.errors import ToodError
from tood.inference import Detector, load_model
from tood.input import InputConfig
from tood.models import AnyDetector, build_model
from tood.models.backbones import ResNet, ResNetConfig
from tood.models.common.published import PublishedFile
from tood.models.necks import FPNConfig
from tood.models.tood import TOODConfig
from tood.models.tood.head import THeadConfig
from tood.training import RunConfig
from tood.training.recipes import recipe_2x, recipe_small
from tood.training.start import initialise_model, starting_point
from tood.weights import HostedFile, export_weights, locate, save_weights
from tood.weights.published import COCO_CLASSES
from tood.zoo import ModelCard, PublishedWeights, named_models
from training.pictures import coco_folder
from weights.file_server import FileServer, Served

NAME = "tood_r50_fpn_1x"
NARROW = TOODConfig(
    backbone=ResNetConfig(block="basic", blocks=(1, 1, 1, 1), width=8, stem_width=8),
    neck=FPNConfig(width=8),
    head=THeadConfig(width=8, interactive_layers=2, norm_groups=2),
    input=InputConfig(short=64, long=64),
)


def tood(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def refused(result: Result, *parts: str) -> None:
    assert result.exit_code == 2, result.output
    assert "Traceback" not in result.output
    assert result.stderr.count("\n") == 1
    for part in parts:
        assert part in result.stderr, result.stderr


@pytest.fixture
def model() -> AnyDetector:
    """A narrow network that is sure of something."""
    torch.manual_seed(0)
    made = build_model(NARROW)
    for layer in (made.head.classifier, made.head.classification_alignment[-1]):
        torch.nn.init.constant_(layer.bias, 1.0)
    return made.eval()


@pytest.fixture
def published(model: AnyDetector, server: FileServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Served:
    """The main model's name stands for the narrow network, whose file lies on a mirror in MMDetection's layout."""
    save_weights(tmp_path / "ours.safetensors", model, COCO_CLASSES)
    export_weights(tmp_path / "ours.safetensors", tmp_path / "theirs.pth", "mmdet")
    served = Served((tmp_path / "theirs.pth").read_bytes())
    weights = PublishedWeights(PublishedFile("https://weights.invalid/tood/narrow.pth", served.sha256[:8]))
    card = ModelCard(NAME, lambda: NARROW, "1x", weights=weights)
    names: Mapping[str, ModelCard] = {**named_models(), NAME: card}
    monkeypatch.setattr("tood.weights.locate.named_models", lambda: names)
    monkeypatch.setenv("TOOD_WEIGHTS_MIRROR", server.address)
    server.serve("/tood/narrow.pth", served)
    return served


def test_predict_needs_no_model_s_name(
    published: Served, server: FileServer, tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    photo = save_picture(tmp_path / "photo.jpg", picture(60, 80, (10, 10, 50, 50)))
    monkeypatch.chdir(tmp_path)
    for _ in range(2):
        result = tood("predict", photo, "--json", "--device", "cpu", "--threshold", 0)
        assert result.exit_code == 0, result.output
    assert [asked.path for asked in server.asked] == ["/tood/narrow.pth"], "fetched once"
    assert (cache / "narrow.pth").read_bytes() == published.content
    found = json.loads((tmp_path / "runs/predict/predictions.json").read_text())[0]["detections"]
    assert found
    assert {one["name"] for one in found} <= set(COCO_CLASSES)


def test_a_detector_by_name_is_the_network_of_the_file(published: Served, model: AnyDetector) -> None:
    image = np.random.default_rng(0).integers(0, 255, (64, 80, 3), np.uint8)
    by_name = Detector(NAME, "cpu")
    assert by_name.class_names == COCO_CLASSES
    expected = Detector.from_model(model, COCO_CLASSES, "cpu")(image)
    assert torch.equal(by_name(image).boxes, expected.boxes)
    assert torch.equal(by_name(image).scores, expected.scores)


def test_eval_by_name(published: Served, tmp_path: Path) -> None:
    data = coco_folder(tmp_path / "data")
    result = tood("eval", "--model", NAME, "--data", data, "--workers", 0, "--device", "cpu", "--json", tmp_path / "m")
    assert result.exit_code == 0, result.output
    assert json.loads((tmp_path / "m").read_text())["images"] == 6


def test_the_name_decides_what_the_tensors_do_not_show(
    published: Served, model: AnyDetector, monkeypatch: pytest.MonkeyPatch
) -> None:
    based = replace(NARROW, postprocess=replace(NARROW.postprocess, max_detections=7))
    names = {NAME: replace(locate.named_models()[NAME], config=lambda: based)}
    monkeypatch.setattr("tood.weights.locate.named_models", lambda: names)
    assert Detector(NAME, "cpu").config.max_detections == 7


def test_a_server_that_does_not_have_it_and_one_that_has_another_are_one_sentence(
    server: FileServer, tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TOOD_WEIGHTS_MIRROR", server.address)
    monkeypatch.chdir(tmp_path)
    photo = save_picture(tmp_path / "photo.jpg", picture(60, 80))
    path = "/mmdetection/v2.0/tood/tood_r50_fpn_1x_coco/tood_r50_fpn_1x_coco_20211210_103425-20e20746.pth"
    target = cache / path.rpartition("/")[2]
    refused(tood("predict", photo), server.address + path, "the server answered 404", f"put at {target} will be used")
    server.serve(path, Served(b"something else"))
    refused(tood("predict", photo), server.address + path, "begins with 20e20746, got ", "removed")
    assert not target.exists()
    refused(tood("predict", photo, "--model", "tood_x101_dcnv2_fpn_2x"), "Google Drive")
    assert not (tmp_path / "runs").exists()


# --- where training starts ------------------------------------------------------------------------------------------


def resnet18(seed: int) -> dict[str, torch.Tensor]:
    """Random weights as torchvision's file has them."""
    torch.manual_seed(seed)
    backbone = ResNet(ResNetConfig(block="basic", blocks=(2, 2, 2, 2)))
    state = {name: tensor for name, tensor in backbone.state_dict().items() if "num_batches" not in name}
    return {**state, "fc.weight": torch.zeros(1000, 512), "fc.bias": torch.zeros(1000)}


@pytest.fixture
def imagenet(server: FileServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, torch.Tensor]:
    """What lies on a mirror in the place of torchvision's ResNet-18."""
    state = resnet18(seed=5)
    torch.save(state, tmp_path / "r18.pth")
    served = Served((tmp_path / "r18.pth").read_bytes())
    server.serve("/models/resnet18-0123.pth", served)
    hosted = HostedFile("https://weights.invalid/models/resnet18-0123.pth", served.sha256[:8])
    shapes = MappingProxyType({("basic", (2, 2, 2, 2), 1, 64): hosted})
    monkeypatch.setattr("tood.models.backbones.resnet.RESNET_FILES", shapes)
    monkeypatch.setenv("TOOD_WEIGHTS_MIRROR", server.address)
    return state


R18 = [
    *("--model", "tood_r18_fpn", "--size", "32", "--workers", "0", "--batch-size", "2", "--device", "cpu"),
    *(f"--set=model.{key}" for key in ("neck.width=8", "head.width=8", "head.norm_groups=2")),
    *("--set=model.head.interactive_layers=2", "--set=accumulation=1"),
]


def test_training_starts_from_imagenet_and_a_resumed_run_fetches_nothing(
    imagenet: dict[str, torch.Tensor], server: FileServer, tmp_path: Path
) -> None:
    data, out = coco_folder(tmp_path / "data"), tmp_path / "run"
    result = tood("train", *R18, "--data", data, "--out", out, "--epochs", 1)
    assert result.exit_code == 0, result.output
    assert "weights: backbone from ImageNet (resnet18-0123.pth)" in result.stdout
    assert configuration.load(out / "config.yaml", RunConfig).start_from == "imagenet"
    trained = load_model(out)[0].state_dict()
    assert torch.equal(trained["backbone.conv1.weight"], imagenet["conv1.weight"]), "the stem is frozen"
    assert len(server.asked) == 1
    (tmp_path / "cache/weights/resnet18-0123.pth").unlink()
    again = tood("train", "--resume", "--out", out, "--epochs", 2)
    assert again.exit_code == 0, again.output
    assert len(server.asked) == 1


def test_without_a_network_training_says_how_to_do_without(
    imagenet: dict[str, torch.Tensor], server: FileServer, tmp_path: Path, cache: Path
) -> None:
    server.files.clear()
    data, out = coco_folder(tmp_path / "data"), tmp_path / "run"
    url = f"{server.address}/models/resnet18-0123.pth"
    refused(
        tood("train", *R18, "--data", data, "--out", out, "--epochs", 1),
        url,
        str(cache / "resnet18-0123.pth"),
        "--from scratch",
    )
    assert not out.exists()
    asked = len(server.asked)
    result = tood("train", *R18, "--data", data, "--out", out, "--epochs", 1, "--from", "scratch")
    assert result.exit_code == 0, result.output
    assert "weights: from scratch\n" in result.stdout
    backbone = configuration.load(out / "config.yaml", RunConfig).model.backbone
    assert (backbone.frozen_stages, backbone.norm_eval) == (-1, False), "what is drawn at random has to learn"
    assert len(server.asked) == asked


def test_where_training_starts_if_nobody_says() -> None:
    run = RunConfig()
    assert starting_point(run) == "imagenet"
    assert starting_point(replace(run, start_from="scratch")) == "scratch"
    assert starting_point(recipe_small(run)) == "scratch"
    assert starting_point(recipe_2x(recipe_small(run))) == "imagenet"
    assert starting_point(replace(run, recipe="a name of my own")) == "imagenet"
    assert starting_point(replace(run, model=NARROW)) == "scratch", "nobody published such a backbone"
    with pytest.raises(ToodError, match=r"no ImageNet weights are published for this model's backbone.*--from scratch"):
        initialise_model(build_model(NARROW), "imagenet")
    assert "keeps parts of the backbone as they are drawn" in initialise_model(build_model(NARROW), "scratch")


def test_a_backbone_s_own_file_is_a_start_too(imagenet: dict[str, torch.Tensor], tmp_path: Path) -> None:
    model = build_model(replace(NARROW, backbone=ResNetConfig(block="basic", blocks=(2, 2, 2, 2))))
    assert initialise_model(model, str(tmp_path / "r18.pth")) == f"backbone from {tmp_path / 'r18.pth'}"
    assert torch.equal(model.state_dict()["backbone.layer4.1.conv2.weight"], imagenet["layer4.1.conv2.weight"])
    with pytest.raises(ToodError, match="does not fit the backbone"):
        initialise_model(build_model(NARROW), str(tmp_path / "r18.pth"))


def test_fine_tuning_by_name_takes_that_model_and_its_weights(
    published: Served, model: AnyDetector, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = {NAME: ModelCard(NAME, lambda: NARROW, "1x")}
    monkeypatch.setattr("tood.zoo.named_models", lambda: names)
    monkeypatch.setattr("tood.training.recipes.named_model", lambda name: names[name])
    data, out = coco_folder(tmp_path / "data"), tmp_path / "run"
    options = ["--workers", 0, "--batch-size", 2, "--device", "cpu", "--epochs", 1, "--set=optimizer.lr=1e-9"]
    result = tood("train", "--from", NAME, "--data", data, "--out", out, *options)
    assert result.exit_code == 0, result.output
    said = " ".join(result.stdout.split())
    assert "classes by name: all 2 kept in the order of the dataset, 78 of the file's are dropped" in said
    tuned, class_names = load_model(out)
    assert class_names == ("cat", "dog")
    ours = model.state_dict()
    for name, tensor in tuned.state_dict().items():
        kept = [COCO_CLASSES.index("cat"), COCO_CLASSES.index("dog")] if "classifier" in name else slice(None)
        torch.testing.assert_close(tensor, ours[name][kept] if tensor.dim() else ours[name], atol=1e-6, rtol=1e-4)


def test_a_start_that_is_not_there_is_one_sentence_and_leaves_nothing(tmp_path: Path) -> None:
    data, out = coco_folder(tmp_path / "data"), tmp_path / "run"
    for start, part in (("none.pth", "there is no weights file none.pth"), ("tood_tiny", "names an architecture")):
        refused(tood("train", *R18, "--data", data, "--out", out, "--from", start), part)
    assert not out.exists()
