"""Frozen stages learn where there are objects enough."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from tood import configuration
from tood.data import load_dataset
from tood.data.transforms import AugmentConfig, CanvasStep
from tood.models.backbones import ResNetConfig
from tood.training import RunConfig, run_config, train
from training.fakes import tiny_run
from training.pictures import coco_folder


@pytest.mark.parametrize(("missing", "frozen"), [(0, 0), (1, 1)])
def test_from_so_many_objects_on_the_stem_alone_rests(tmp_path: Path, missing: int, frozen: int) -> None:
    data = coco_folder(tmp_path / "data")
    run = tiny_run(tmp_path / "run")
    backbone = replace(run.model.backbone, frozen_stages=1)
    train(
        replace(
            run,
            model=replace(run.model, backbone=backbone),
            data=replace(run.data, path=str(data), workers=0),
            augment=AugmentConfig((CanvasStep(32),)),
            epochs=1,
            thaw_from=load_dataset(data, "train").box_count + missing,
        )
    )
    learned = configuration.load(tmp_path / "run" / "config.yaml", RunConfig).model.backbone
    assert isinstance(learned, ResNetConfig)
    assert learned.frozen_stages == frozen


def test_the_recipe_for_few_pictures_has_such_a_number() -> None:
    assert run_config("tood_lite0").thaw_from == 1_000
    assert run_config("tood_tiny").thaw_from is None
    assert run_config("tood_r50_fpn_1x").thaw_from is None
