"""The run that somebody means who leaves things open: which recipe a detector is fine-tuned by, and what is frozen."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from tood import configuration
from tood.cli import app
from tood.errors import ToodError
from tood.models import build_model
from tood.models.backbones import EfficientNetLiteConfig
from tood.training import CONFIG, DataConfig, RunConfig, begun_run, choose_run, run_config, train, with_settings
from tood.training.choice import FEW_PICTURES
from tood.training.recipes import DETECTOR_RATE
from tood.training.start import started
from tood.weights import save_weights
from tood.zoo import named_model
from training.pictures import coco_folder

PICTURES = 6


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> DataConfig:
    return DataConfig(path=str(coco_folder(tmp_path_factory.mktemp("few") / "data", images=PICTURES)))


def weights(name: str, folder: Path) -> str:
    file = folder / f"{name}.safetensors"
    save_weights(file, build_model(replace(named_model(name).config(), classes=2)), ("a", "b"))
    return str(file)


# --- which recipe ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    [
        *("tood_r50_fpn_1x", "tood_r101_fpn_2x", "atss_r50_fpn_1x", "gfl_r50_fpn_2x", "paa_r50_fpn_1.5x"),
        *("yolox_nano", "yolox_s", "ppyoloe_s", "ppyoloe_plus_s"),
    ],
)
def test_few_pictures_are_learned_by_a_published_detector_as_few_pictures_are(name: str, data: DataConfig) -> None:
    own = run_config(name)
    for model in (None, name):
        choice = choose_run(model, name, data=data)
        run = choice.run
        assert (run.recipe, run.start_from, run.optimizer.kind) == ("transfer", name, "adamw")
        assert run.optimizer.lr == DETECTOR_RATE < run_config(name, recipe="transfer").optimizer.lr
        assert run.model == own.model, "the size too is its own"
        assert (run.epochs, run.minutes) == (None, None), "until a plateau"
        recipe, rate = choice.why[-2:]
        assert f"{PICTURES} training pictures are few (fewer than {FEW_PICTURES:,})" in recipe
        assert f"--recipe {own.recipe} takes the model's own" in recipe
        assert f"{DETECTOR_RATE:g} instead of the 0.001" in rate


def test_so_are_files_of_its_weights(tmp_path: Path, data: DataConfig) -> None:
    file = weights("tood_r18_fpn", tmp_path)
    for model in (None, "tood_r18_fpn"):
        run = choose_run(model, file, 64, data=data).run
        assert (run.name, run.recipe, run.optimizer.lr) == ("tood_r18_fpn", "transfer", DETECTOR_RATE)
        assert run.model.input.short == 64


def test_many_pictures_are_learned_by_its_own_recipe(data: DataConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tood.training.choice.FEW_PICTURES", PICTURES)
    choice = choose_run("tood_r50_fpn_1x", "tood_r50_fpn_1x", data=data)
    assert choice.run == replace(run_config("tood_r50_fpn_1x"), start_from="tood_r50_fpn_1x")
    assert choice.datasets is not None
    assert len(choice.datasets.training.images) == PICTURES, "read once, for the run too"
    (told,) = choice.why
    assert "6 training pictures are not few (6 or more); --recipe transfer takes the one for few" in told


def test_a_recipe_that_was_named_is_taken(data: DataConfig) -> None:
    named = choose_run("tood_r50_fpn_1x", "tood_r50_fpn_1x", recipe="1x", data=data)
    assert (named.run.recipe, named.run.optimizer.lr, named.why) == ("1x", 0.01, ())
    same = choose_run("tood_r50_fpn_1x", "tood_r50_fpn_1x", recipe="transfer", data=data)
    assert same.run == choose_run("tood_r50_fpn_1x", "tood_r50_fpn_1x", data=data).run
    assert [line.split(":")[0] for line in same.why] == ["rate"]


@pytest.mark.parametrize("name", ["tood_lite0", "tood_tiny", "atss_tiny"])
def test_models_for_few_pictures_keep_their_own(name: str, data: DataConfig, tmp_path: Path) -> None:
    choice = choose_run(None, weights(name, tmp_path), data=data)
    assert replace(choice.run, start_from=None) == replace(run_config(name), start_from=None)
    assert len(choice.why) == 1, "which model it is"


@pytest.mark.parametrize("start_from", [None, "imagenet", "scratch", "backbone"])
def test_without_a_detector_s_weights_its_own_recipe(start_from: str | None, data: DataConfig, tmp_path: Path) -> None:
    if start_from == "backbone":
        start_from = str(tmp_path / "a.pth")
        torch.save({"conv1.weight": torch.zeros(64, 3, 7, 7)}, start_from)
    choice = choose_run("tood_r50_fpn_1x", start_from, data=data)
    assert (choice.run, choice.why) == (replace(run_config("tood_r50_fpn_1x"), start_from=start_from), ())


def test_what_is_not_there_is_told(data: DataConfig) -> None:
    with pytest.raises(ToodError, match=r"there is no weights file nowhere\.pth"):
        choose_run("tood_r50_fpn_1x", "nowhere.pth", data=data)
    with pytest.raises(ToodError, match="no_such_folder"):
        choose_run(None, "tood_r50_fpn_1x", data=DataConfig(path="no_such_folder"))
    with pytest.raises(ToodError, match="has no split 'nowhere'"):
        choose_run(None, "tood_r50_fpn_1x", data=replace(data, train="nowhere"))


# --- what is frozen from scratch -------------------------------------------------------------------------------------

# Nobody publishes weights of such a backbone.
ANOTHER = "model.backbone.depth=1.4"


def frozen(run: RunConfig) -> tuple[int, bool]:
    backbone = run.model.backbone
    assert isinstance(backbone, EfficientNetLiteConfig)
    return backbone.frozen_stages, backbone.norm_eval


@pytest.mark.parametrize("settings", [[ANOTHER], ["start_from=scratch"]])
def test_what_is_drawn_at_random_learns(settings: list[str]) -> None:
    run = run_config("tood_lite0")
    assert frozen(run) == (3, True)
    assert frozen(with_settings(run, settings)) == (-1, False)
    # As a run from Python, whoever has set it.
    python = started(configuration.apply_overrides(run, settings))
    assert (python.start_from, frozen(python)) == ("scratch", (-1, False))
    assert frozen(started(replace(python, thaw_scratch=True))) == (-1, False)


def test_what_knows_something_rests() -> None:
    for start_from in (None, "imagenet", "a.safetensors"):
        run = with_settings(replace(run_config("tood_lite0"), start_from=start_from), ["optimizer.lr=0.1"])
        assert frozen(started(run)) == (3, True)


@pytest.mark.parametrize("order", [1, -1])
def test_frozen_stages_that_are_given_rest_all_the_same(order: int) -> None:
    run = with_settings(run_config("tood_lite0"), [ANOTHER, "model.backbone.frozen_stages=2"][::order])
    assert frozen(started(run)) == (2, False)
    run = with_settings(run_config("tood_lite0"), ["thaw_scratch=false", ANOTHER])
    assert frozen(started(run)) == (3, True)


def test_a_run_from_python_learns_all_over_from_scratch_and_goes_on_so(tmp_path: Path) -> None:
    data, out = DataConfig(path=str(coco_folder(tmp_path / "data", images=2)), workers=0), tmp_path / "run"
    run = configuration.apply_overrides(run_config("tood_lite0", 64), [ANOTHER, "trackers=[]"])
    run = replace(run, data=data, out=out, epochs=1, batch_size=2, device="cpu")
    train(run)
    kept = configuration.load(out / CONFIG, RunConfig)
    assert (frozen(kept), kept.thaw_scratch, kept.start_from) == ((-1, False), False, "scratch")
    result = CliRunner().invoke(app, ["train", "--resume", "--out", str(out), "--epochs", "2"])
    assert result.exit_code == 0, result.output
    assert "changed since the run began: epochs was 1, is 2" in " ".join(result.output.split())


def test_a_run_from_before_goes_on_as_it_was_begun(tmp_path: Path) -> None:
    """Its file has frozen stages and no word on them."""
    begun = replace(run_config("tood_lite0"), start_from="scratch")
    configuration.save(begun, tmp_path / CONFIG)
    lines = (tmp_path / CONFIG).read_text().splitlines(keepends=True)
    (tmp_path / CONFIG).write_text("".join(line for line in lines if "thaw_scratch" not in line))
    run = begun_run(tmp_path)
    assert frozen(started(run)) == (3, True)
    assert frozen(started(with_settings(run, ["epochs=3"]))) == (3, True)
