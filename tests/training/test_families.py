"""Two families and two criteria, crossed by configuration alone, and a run of each kind end to end."""

from __future__ import annotations

import csv
import io
import itertools
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console

from tood import configuration
from tood.alignment import ATSSCriterionConfig, TaskAlignedCriterionConfig
from tood.boxes import iou_pairs
from tood.data.transforms import AugmentConfig, CanvasStep, FlipStep
from tood.errors import ToodError
from tood.inference import Detector, postprocess
from tood.models import build_model
from tood.models.atss import ATSS, ATSSConfig
from tood.plots import training_curves
from tood.structures import DensePredictions, Targets
from tood.training import DataConfig, RunConfig, run_config, train
from tood.training.optim import build_optimizer
from tood.weights import load_weights
from training.fakes import tiny_run, tiny_trainer
from training.pictures import coco_folder

HEADS: dict[str, dict[str, Any]] = {
    # Anchors of 32 pixels, about the objects' size: no anchor of 64 would be anyone's by ATSS's own threshold.
    "tood": {"width": 16, "interactive_layers": 2, "norm_groups": 4, "anchor_scale": 4.0},
    "atss": {"width": 16, "tower_layers": 2, "norm_groups": 4, "anchor_scale": 4.0},
    "gfl": {"width": 16, "tower_layers": 2, "norm_groups": 4, "anchor_scale": 4.0, "bins": 9},
    "paa": {"width": 16, "tower_layers": 2, "norm_groups": 4, "anchor_scale": 4.0},
}
# What judges the boxes apart from their class, and what it is called where it learns.
JUDGES = {"atss": "centerness", "paa": "iou"}


def crossed(out: Path, family: str, criterion: str) -> RunConfig:
    """The tiny run with another head and criterion, as a YAML file would say it."""
    raw = configuration.to_dict(tiny_run(out))
    head = dict(HEADS[family])
    if family in JUDGES and criterion not in JUDGES:
        head[JUDGES[family]] = False
    del raw["model"]["postprocess"]  # the family's own
    raw["model"] |= {"family": family, "head": head}
    raw["criterion"] = {"kind": criterion}
    if criterion == "task_aligned":
        raw["criterion"]["warm_up_share"] = 0.0
    return configuration.from_dict(RunConfig, raw)


@pytest.mark.parametrize(
    ("family", "criterion"),
    [
        *itertools.product(("tood", "atss"), ("task_aligned", "atss")),
        *(("gfl", "task_aligned"), ("paa", "atss"), ("gfl", "gfl"), ("tood", "gfl"), ("paa", "paa"), ("tood", "paa")),
    ],
)
def test_every_head_learns_two_pictures_by_heart_under_every_criterion(
    tmp_path: Path, family: str, criterion: str
) -> None:
    config = crossed(tmp_path, family, criterion)
    config.require_all_trained()
    boxes = torch.tensor([[10.0, 6, 42, 38], [19, 25, 50, 60]])
    images = torch.zeros(2, 3, 64, 64)
    images[0, :, 6:38, 10:42], images[1, :, 25:60, 19:50] = 2, -2
    targets = [Targets(boxes[i, None], torch.tensor([i]), torch.tensor([False])) for i in range(2)]
    torch.manual_seed(0)
    model, measure = build_model(config.model).train(), config.criterion.build()
    optimizer = build_optimizer(config.optimizer, model, 5e-3)
    history = []
    for _ in range(60 if criterion in ("gfl", "paa") else 30):
        losses = measure(model(images), targets)
        optimizer.zero_grad()
        losses.total.backward()
        assert all(p.grad is not None for p in model.parameters() if p.requires_grad), "DDP would stop"
        optimizer.step()
        history.append({name: value.item() for name, value in losses.terms.items()})
    first, last = history[0], history[-1]
    judged = [JUDGES[criterion]] if family in JUDGES and criterion in JUDGES else []
    assert list(first) == ["cls", "box", *judged, *(["dfl"] if family == criterion == "gfl" else [])]
    if criterion in ("task_aligned", "atss"):  # the others weigh a box by what its scores or its IoU come to
        assert last["cls"] < 0.25 * first["cls"]
        assert last["box"] < 0.25 * first["box"]
    # A soft target's cross entropy ends at its own entropy.
    assert last.get("centerness", 0.0) <= 0.95 * first.get("centerness", 0.0)
    with torch.no_grad():
        results = postprocess(model(images), None, config.model.postprocess, torch.full((2, 2), 64))
    for i, found in enumerate(results):
        # Under PAA the T-Head tells the classes apart after some hundred steps.
        assert found.labels[0] == i or (family, criterion) == ("tood", "paa")
        assert iou_pairs(found.boxes[0], boxes[i]) > 0.7


@pytest.mark.parametrize("criterion", ["task_aligned", "atss"])
def test_a_run_records_the_losses_that_its_criterion_has(tmp_path: Path, criterion: str) -> None:
    tiny_trainer(replace(crossed(tmp_path, "atss", criterion), epochs=1)).run()
    with (tmp_path / "metrics.csv").open(newline="") as file:
        table = list(csv.DictReader(file))
    names = [name for name in table[0] if name.startswith("loss_")]
    assert names == ["loss_cls", "loss_box", *(["loss_centerness"] if criterion == "atss" else [])]
    for row in table:
        assert float(row["loss"]) == pytest.approx(sum(float(row[name]) for name in names), rel=1e-4)
    training_curves(tmp_path / "metrics.csv", tmp_path / "curves.png")


@pytest.mark.parametrize("family", ["tood", "atss"])
def test_heads_give_fp32_under_autocast(tmp_path: Path, family: str) -> None:
    model = build_model(crossed(tmp_path, family, "atss" if family == "atss" else "task_aligned").model)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = model(torch.zeros(1, 3, 64, 64))
    given = [output.scores, output.boxes, *([] if output.quality is None else [output.quality])]
    assert {values.dtype for values in given} == {torch.float32}


def test_logits_whose_sum_is_more_than_fp16_holds_are_finite(tmp_path: Path) -> None:
    trainer = tiny_trainer(replace(crossed(tmp_path, "atss", "atss"), epochs=1))

    def halve(_module: object, _inputs: object, output: DensePredictions) -> DensePredictions:
        return replace(output, scores=(output.scores - 2000).half())

    trainer.learner.model.register_forward_hook(halve)
    assert trainer.run().steps == 3


def test_the_columns_of_a_task_aligned_run_stay_as_they_were(tmp_path: Path) -> None:
    tiny_trainer(replace(tiny_run(tmp_path), epochs=1)).run()
    with (tmp_path / "metrics.csv").open(newline="") as file:
        header = next(csv.reader(file))
    assert ",".join(header) == "epoch,step,seconds,images_per_second,lr,loss,loss_cls,loss_box,AP,AP50,AP75"


def test_the_named_model_comes_with_its_criterion_and_recipe() -> None:
    config, rival = run_config("atss_r50_fpn_1x"), run_config("tood_r50_fpn_1x")
    assert config.model == ATSSConfig()
    assert config.criterion == ATSSCriterionConfig()
    assert rival.criterion == TaskAlignedCriterionConfig()
    # Side by side: backbone, neck, data and schedule are the same.
    assert replace(config, name=rival.name, model=rival.model, criterion=rival.criterion) == rival


def test_criteria_are_switched_on_the_command_line() -> None:
    settings = ["criterion.box_weight=3", "criterion.kind=task_aligned", "model.head.centerness=false"]
    config = configuration.apply_overrides(run_config("atss_r50_fpn_1x"), settings)
    assert config.criterion == TaskAlignedCriterionConfig(box_weight=3.0), "topk of an ATSS assigner is not TAL's"
    config.require_all_trained()
    back = configuration.apply_overrides(config, ["criterion.kind=atss", "criterion.assigner.topk=7"])
    assert isinstance(back.criterion, ATSSCriterionConfig)
    assert (back.criterion.assigner.topk, back.criterion.box_weight) == (7, 3.0)


def test_a_centerness_that_nothing_would_train_is_refused_at_the_start(tmp_path: Path) -> None:
    config = crossed(tmp_path / "run", "atss", "task_aligned")
    assert isinstance(config.model, ATSSConfig)
    head = replace(config.model.head, centerness=True)
    with pytest.raises(ToodError, match=r"model\.head\.centerness=false"):
        train(
            replace(
                config, model=replace(config.model, head=head), data=DataConfig(str(coco_folder(tmp_path / "data")))
            )
        )
    assert not (tmp_path / "run").exists()


def test_an_atss_from_a_folder_of_pictures_to_detections(tmp_path: Path) -> None:
    data = coco_folder(tmp_path / "data")
    config = replace(
        crossed(tmp_path / "run", "atss", "atss"),
        augment=AugmentConfig((CanvasStep(32), FlipStep())),
        data=DataConfig(path=str(data), workers=0),
        epochs=2,
    )
    output = io.StringIO()
    result = train(config, console=Console(file=output, width=300))
    assert result.ap is not None
    assert "centerness" in output.getvalue()
    saved = configuration.load(tmp_path / "run/config.yaml", RunConfig)
    assert isinstance(saved.model, ATSSConfig)
    assert saved.criterion == config.criterion
    assert isinstance(load_weights(result.last)[0], ATSS)
    detector = Detector(tmp_path / "run/last.safetensors", threshold=0.0)
    found = detector(sorted((data / "train2017").glob("*.png"))[0])
    assert len(found)
    height, width = found.image.shape[:2]  # type: ignore[union-attr]
    assert found.boxes.min() >= 0
    assert (found.boxes.amax(dim=0)[2:] <= found.boxes.new_tensor([width, height]) + 1e-3).all()
