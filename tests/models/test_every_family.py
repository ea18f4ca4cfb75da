"""What the house promises of every family, from training to export, on the examples in the families' records."""

from __future__ import annotations

import io
import json
import math
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from rich.console import Console
from typer.testing import CliRunner

from narrow_models import EXAMPLES, lively
from tood import configuration
from tood.cli import app
from tood.data.transforms import AugmentConfig, CanvasStep, FlipStep
from tood.export import ExportConfig, Origin, description_of
from tood.export.network import export_network
from tood.export.torch_program import whole_program
from tood.inference import Detector
from tood.input import InputConfig
from tood.models import FAMILIES, AnyCriterionConfig, AnyModelConfig, build_model, for_inference
from tood.models.common.deform_conv import DeformConv2d
from tood.models.measure import HeldBytes, measure
from tood.ops import plain
from tood.training import DataConfig, RunConfig, train
from tood.weights import export_weights, import_weights, load_detector_file, load_weights, save_weights
from training.fakes import tiny_run
from training.pictures import coco_folder

RECORDS = {family.name: family for family in FAMILIES}
CLASSES = tuple("abcdefg")


class Trained(NamedTuple):
    """A run of a family's plainest example on made-up pictures."""

    run: RunConfig
    data: Path
    printed: str

    @property
    def out(self) -> Path:
        assert self.run.out is not None
        return self.run.out


@pytest.fixture(scope="module", params=RECORDS)
def trained(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    family = RECORDS[request.param]
    folder = tmp_path_factory.mktemp(family.name)
    data = coco_folder(folder / "data")
    model = next(iter(family.examples().values()))
    run = replace(
        tiny_run(folder / "run"),
        # As a configuration file would say it.
        model=configuration.from_dict(
            AnyModelConfig, configuration.to_dict(replace(model, classes=2, input=InputConfig(64, 64)))
        ),
        criterion=configuration.from_dict(AnyCriterionConfig, {"kind": family.criteria[0]().kind}),
        augment=AugmentConfig((CanvasStep(64), FlipStep())),
        data=DataConfig(path=str(data), workers=0),
        epochs=2,
    )
    output = io.StringIO()
    result = train(run, console=Console(file=output, width=300))
    assert result.ap is not None
    return Trained(run, data, output.getvalue())


def test_a_run_leaves_its_figures_and_its_configuration(trained: Trained) -> None:
    saved = configuration.load(trained.out / "config.yaml", RunConfig)
    # From scratch all of a network learns.
    learning = trained.run.from_scratch().model
    assert (saved.model, saved.criterion) == (learning, trained.run.criterion)
    assert all(f"loss_{term}" in (trained.out / "metrics.csv").read_text() for term in saved.criterion.build().terms)


def test_the_configuration_starts_the_same_run_again(trained: Trained, tmp_path: Path) -> None:
    again = tmp_path / "again"
    arguments = ["--config", str(trained.out / "config.yaml"), "--out", str(again)]
    result = CliRunner().invoke(app, ["train", *arguments])
    assert result.exit_code == 0, result.output
    one, two = (load_weights(folder / "last.safetensors")[0].state_dict() for folder in (trained.out, again))
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_a_trained_network_is_evaluated_and_predicts(trained: Trained, tmp_path: Path) -> None:
    figures = tmp_path / "figures.json"
    arguments = ["--model", str(trained.out), "--data", str(trained.data), "--split", "val", "--json", str(figures)]
    result = CliRunner().invoke(app, ["eval", *arguments, "--workers", "0"])
    assert result.exit_code == 0, result.output
    assert list(json.loads(figures.read_text())["per_class"]) == ["cat", "dog"]
    detector = Detector(trained.out / "last.safetensors", device="cpu", threshold=0.0)
    found = detector(sorted((trained.data / "val2017").glob("*.png"))[0])
    assert len(found)
    assert set(found.names) <= {"cat", "dog"}
    # A picture of 48 x 40 pixels, of which a box may lie partly outside, but not at all.
    assert torch.isfinite(found.boxes).all()
    assert (found.boxes[:, 0] < 48).all()
    assert (found.boxes[:, 2:] > 0).all()


@pytest.mark.parametrize("name", EXAMPLES)
def test_weights_out_and_in(name: str, tmp_path: Path) -> None:
    model = lively(build_model(EXAMPLES[name]))
    ours = tmp_path / "ours.safetensors"
    save_weights(ours, model, CLASSES)
    loaded, names = load_weights(ours)
    assert (loaded.config, names) == (model.config, CLASSES)
    wanted = model.state_dict()
    for layout in RECORDS[model.config.family].weights.layouts(model.state_dict().keys()):
        export_weights(ours, tmp_path / "published.pth", layout)
        import_weights(tmp_path / "published.pth", tmp_path / "again.safetensors")
        again, _ = load_weights(tmp_path / "again.safetensors")
        for part in (again, loaded):
            state = part.state_dict()
            assert all(torch.equal(tensor, state[key]) for key, tensor in wanted.items())
    published = torch.load(tmp_path / "published.pth", weights_only=True)["state_dict"]
    if not RECORDS[model.config.family].weights.matches(published):
        return  # They are called as another family's, and what the file says of itself decides.
    # Without that the tensors show the shape.
    torch.save(published, tmp_path / "plain.pth")
    shown = load_detector_file(tmp_path / "plain.pth")[0].config
    assert (type(shown), shown.classes, shown.neck) == (type(model.config), 7, model.config.neck)
    assert shown.backbone.channels == model.config.backbone.channels


@pytest.mark.parametrize("name", EXAMPLES)
def test_cost_and_copy_for_inference(name: str) -> None:
    config = EXAMPLES[name]
    model, cost = lively(build_model(config)), measure(config)
    assert cost.parameters == sum(parameter.numel() for parameter in model.parameters())
    assert cost.multiply_adds > 0
    images = torch.randn(1, 3, *cost.size, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode(), plain(), HeldBytes([images], model.state_dict().values()) as held:
        model(images)
    if any(isinstance(module, DeformConv2d) for module in model.modules()):
        # On the meta device a deformable convolution is one operation, which needs what it samples inside itself.
        assert images.nbytes < cost.map_bytes < held.most
    else:
        assert cost.map_bytes == held.most
    with torch.inference_mode():
        wanted, given = model(images), for_inference(model)(images)
    # Random offsets of deformable layers amplify rounding.
    torch.testing.assert_close(given.scores, wanted.scores, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(given.boxes, wanted.boxes, rtol=1e-3, atol=0.1)


@pytest.mark.parametrize("name", RECORDS)
def test_exported_network(name: str) -> None:
    model = lively(build_model(next(iter(RECORDS[name].examples().values()))))
    description = description_of(Origin(model, CLASSES), ExportConfig("torch"))
    exported, network = whole_program(model, description).module(), export_network(model, "grid_sample")
    divisor = model.config.input.divisor
    side = 2 * math.lcm(model.config.strides[-1], divisor)
    for batch, height, width in ((2, side, side + divisor), (1, side + 2 * divisor, side)):
        images = torch.randn(batch, 3, height, width, generator=torch.Generator().manual_seed(height))
        with torch.inference_mode(), plain():
            given, wanted = exported(images), network(images)
        torch.testing.assert_close(given[0], wanted[0], rtol=1e-5, atol=1e-4)
        torch.testing.assert_close(given[1:], wanted[1:], rtol=1e-5, atol=1e-6)
