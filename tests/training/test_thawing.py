"""Frozen stages learn where there are objects enough, unless somebody has said how many are frozen."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from tood import configuration
from tood.cli import app
from tood.models.backbones import EfficientNetLiteConfig, ResNetConfig
from tood.training import RunConfig, run_config
from tood.training.freeze import thawed
from training.pictures import with_objects

ENOUGH = 1_000


def trained(data: Path, out: Path, *settings: str) -> tuple[RunConfig, str]:
    """The run that a command has trained, and what it said."""
    options = ["--model", "tood_lite0", "--size", "64", "--batch-size", "2", "--epochs", "1", "--device", "cpu"]
    options += ["--workers", "0", "--out", str(out), *(f"--set={setting}" for setting in ("trackers=[]", *settings))]
    result = CliRunner().invoke(app, ["train", "--data", str(data), *options])
    assert result.exit_code == 0, result.output
    return configuration.load(out / "config.yaml", RunConfig), " ".join(result.output.split())


def frozen(run: RunConfig) -> int:
    backbone = run.model.backbone
    assert isinstance(backbone, EfficientNetLiteConfig)
    return backbone.frozen_stages


def test_from_so_many_objects_on_the_stem_alone_rests(tmp_path: Path) -> None:
    data = with_objects(tmp_path / "data", ENOUGH)
    run, said = trained(data, tmp_path / "run")
    assert frozen(run) == 0
    assert "the backbone's stem rests, since edges are edges" in said
    first, *why = [line for line in (tmp_path / "run" / "config.yaml").read_text().splitlines() if line[0] == "#"]
    assert first.startswith("# tood train --config")
    assert [line.split(":")[0] for line in why] == ["# learning", "# pictures"]
    assert "since edges are edges" in why[0]
    # What was decided is in the file, for whoever changes it or shows it other pictures.
    assert run.thaw_from is None
    fewer, said = trained(with_objects(tmp_path / "fewer", ENOUGH - 1), tmp_path / "other")
    assert frozen(fewer) == 3
    assert "stem and first 3 of 7 stages rest" in said


@pytest.mark.parametrize(
    ("settings", "wanted"),
    [
        (["model.backbone.frozen_stages=5"], 5),
        (["model.backbone.frozen_stages=3"], 3),  # which is what it would be anyway
        (["model.backbone.frozen_stages=-1"], -1),
        ([f"thaw_from={ENOUGH}", "model.backbone.frozen_stages=5"], 0),
    ],
)
def test_frozen_stages_that_were_given_stay(settings: list[str], wanted: int, tmp_path: Path) -> None:
    run, _ = trained(with_objects(tmp_path / "data", ENOUGH), tmp_path / "run", *settings)
    assert frozen(run) == wanted


def test_which_models_have_such_a_number() -> None:
    assert run_config("tood_lite0").thaw_from == ENOUGH
    assert run_config("tood_lite0_320").thaw_from == ENOUGH
    assert run_config("tood_lite2").thaw_from == ENOUGH
    assert run_config("tood_tiny").thaw_from is None
    assert run_config("tood_r50_fpn_1x").thaw_from is None


@pytest.mark.parametrize("recipe", ["1x", "transfer", "small"])
def test_published_resnets_keep_their_first_stage_in_every_recipe(recipe: str) -> None:
    backbone = thawed(run_config("tood_r18_fpn", recipe=recipe), 1_000_000).model.backbone
    assert isinstance(backbone, ResNetConfig)
    assert (backbone.frozen_stages, backbone.norm_eval) == (1, True)
