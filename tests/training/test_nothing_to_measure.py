"""A validation split on which nothing can be measured is told once; the last weights then are the best."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from typer.testing import CliRunner

from dataset_files import box_row, coco, image_row, voc_xml, write_coco_folder, write_voc_folder
from tood.cli.main import app
from tood.data import load_dataset, pick_splits
from tood.errors import ToodError
from tood.training import DataConfig, RunConfig, TrainResult, train
from tood.weights import load_weights
from training.fakes import FakeScores, tiny_run, tiny_trainer
from training.pictures import coco_folder

Change = Callable[[dict[str, Any]], dict[str, Any]]


def without_annotations(content: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in content.items() if key != "annotations"}


def all_crowds(content: dict[str, Any]) -> dict[str, Any]:
    return {**content, "annotations": [{**row, "iscrowd": 1} for row in content["annotations"]]}


def changed(root: Path, split: str, change: Change) -> Path:
    path = root / "annotations" / f"instances_{split}2017.json"
    path.write_text(json.dumps(change(json.loads(path.read_text()))))
    return root


def run_on(data: Path, out: Path, val: str | None = None) -> RunConfig:
    settings = DataConfig(path=str(data), workers=0, val=val)
    return replace(tiny_run(out), data=settings, epochs=3, patience=1)


def trained(config: RunConfig) -> tuple[TrainResult, str]:
    shown = io.StringIO()
    result = train(config, console=Console(file=shown, width=1000, force_terminal=False))
    return result, shown.getvalue()


@pytest.mark.parametrize("val", [None, "val"])
@pytest.mark.parametrize(
    ("change", "why"),
    [
        (without_annotations, "annotations"),
        (lambda content: {**content, "annotations": None}, "annotations"),
        (lambda content: {**content, "annotations": []}, "annotations|none of its pictures has a box"),
        (all_crowds, "all of its 6 boxes are crowds"),
    ],
    ids=["missing", "null", "empty", "crowds"],
)
def test_nothing_to_measure_is_told_once_and_the_last_is_the_best(
    tmp_path: Path, change: Change, why: str, val: str | None
) -> None:
    data = changed(coco_folder(tmp_path / "data"), "val", change)
    result, said = trained(run_on(data, tmp_path / "run", val))
    told = [line for line in said.splitlines() if "there will be no AP" in line]
    assert len(told) == 1
    assert any(part in told[0] for part in why.split("|"))
    assert "best.safetensors is the last" in told[0]
    assert "-1.000" not in said
    assert "AP 0" not in said
    assert (result.ap, result.best_ap, result.epochs) == (None, None, 3)
    assert result.best is not None
    best, last = load_weights(result.best)[0].state_dict(), load_weights(result.last)[0].state_dict()
    assert all(torch.equal(best[name], last[name]) for name in best)
    rows = list(csv.DictReader((tmp_path / "run" / "metrics.csv").open()))
    assert not any(row["AP"] for row in rows)


def test_all_difficult_is_nothing_to_measure(tmp_path: Path) -> None:
    box = (10, 10, 40, 40)
    xmls = {"a": voc_xml("a", [("cat", box, 0)]), "b": voc_xml("b", [("cat", box, 1)])}
    xmls["c"] = voc_xml("c", [("cat", box, 0)])
    data = write_voc_folder(tmp_path / "data", xmls, {"train": ["a", "c"], "val": ["b"]})
    _, said = trained(run_on(data, tmp_path / "run"))
    assert "nothing can be measured on split 'val': all of its 1 boxes are difficult, which are neither learned" in said
    only = run_on(data, tmp_path / "other")
    with pytest.raises(ToodError, match="there is no box to learn from: all of its 1 boxes are difficult"):
        train(replace(only, data=replace(only.data, train="val", val="train")))
    assert not (tmp_path / "other").exists()


def test_a_training_split_of_crowds_is_refused(tmp_path: Path) -> None:
    data = changed(coco_folder(tmp_path / "data"), "train", all_crowds)
    with pytest.raises(ToodError, match=r"split 'train': there is no box to learn from: all of its 6 boxes are crowds"):
        train(run_on(data, tmp_path / "run"))
    assert not (tmp_path / "run").exists()


def test_figures_that_say_nothing_choose_nothing(tmp_path: Path) -> None:
    """Whatever the reason for COCO's -1."""
    config = replace(tiny_run(tmp_path / "run"), epochs=3, patience=1)
    trainer = tiny_trainer(config, lambda _: FakeScores(-1.0, -1.0, -1.0))
    result = trainer.run()
    assert (result.ap, result.best_ap, result.epochs) == (None, None, 3)
    best, last = load_weights(result.best)[0].state_dict(), load_weights(result.last)[0].state_dict()  # type: ignore[arg-type]
    assert all(torch.equal(best[name], last[name]) for name in best)


@pytest.mark.parametrize("name", ["test", "image_info_test-dev2017", "test_no_labels", "val", "holdout"])
@pytest.mark.parametrize("change", [without_annotations, lambda content: {**content, "annotations": []}])
def test_an_unannotated_json_is_no_annotated_split_whatever_its_name(tmp_path: Path, name: str, change: Change) -> None:
    content = coco([image_row(1)], [box_row(1, 1)], {3: "cat"})
    path = write_coco_folder(tmp_path, content)
    path.rename(path.with_name("train.json"))
    (path.with_name(f"{name}.json")).write_text(json.dumps(change(content), indent=1))
    picked = pick_splits(tmp_path)
    assert (picked.train, picked.val, picked.test, picked.evaluation) == ("train", None, None, "train")
    if picked.note and name == "val":
        assert "split 'val' has no annotations" in picked.note


def test_a_broken_json_is_not_taken_for_an_unannotated_one(tmp_path: Path) -> None:
    content = coco([image_row(1)], [box_row(1, 1)], {3: "cat"})
    for split in ("train", "val"):
        write_coco_folder(tmp_path, content, split)
    path = tmp_path / "annotations" / "instances_val2017.json"
    path.write_text(path.read_text()[:60])
    assert pick_splits(tmp_path).val == "val"
    with pytest.raises(ToodError, match="broken json"):
        load_dataset(tmp_path, "val")


def test_an_evaluation_of_nothing_says_so(tmp_path: Path) -> None:
    data = changed(coco_folder(tmp_path / "data"), "val", all_crowds)
    (tmp_path / "d.json").write_text("[]")
    arguments = ["eval", "--detections", str(tmp_path / "d.json"), "--data", str(data), "--split", "val"]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    assert "nothing can be measured: no box but crowds" in " ".join(result.output.split())
