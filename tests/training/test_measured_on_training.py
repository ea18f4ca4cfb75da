"""AP on pictures that are trained on is told to be no measure, and chooses no weights."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from dataset_files import voc_xml, write_voc_folder
from tood.cli import app
from tood.data import load_dataset, shared_images
from tood.training import DataConfig, Datasets
from tood.training.datasets import describe, open_datasets
from tood.weights import load_weights
from training.pictures import coco_folder

SAYS_NOTHING, ONLY_SHOWN = "says nothing of other pictures", "the AP is only shown: it does not choose the weights"


def read_of(data: Path, **settings: str) -> Datasets:
    return open_datasets(replace(DataConfig(path=str(data)), **settings))  # type: ignore[arg-type]


def yolo(root: Path, yaml: str, pictures: int = 6) -> Path:
    """Pictures 0.png, 1.png, ... with a box each, in images/."""
    for folder in ("images", "labels"):
        (root / folder).mkdir(parents=True)
    for number in range(pictures):
        cv2.imwrite(str(root / "images" / f"{number}.png"), np.full((32, 32, 3), 30 * number, np.uint8))
        (root / "labels" / f"{number}.txt").write_text("0 0.5 0.5 0.5 0.5\n")
    (root / "data.yaml").write_text(f"{yaml}names: [cat]\n")
    return root


def in_one_folder(root: Path) -> Path:
    return yolo(root, "train: images\nval: images\n")


def with_another_spelling(root: Path) -> Path:
    (root / "elsewhere").mkdir(parents=True)
    (root / "elsewhere" / "link").symlink_to(root / "data" / "images")
    content = yolo(root / "data", "train: images\nval: val.txt\n")
    (content / "val.txt").write_text("\n".join(f"{root}/elsewhere/../data/images/{n}.png" for n in range(6)))
    return content


def coco_twice(root: Path) -> Path:
    """The same pictures in two json files, and one more in the second."""
    coco_folder(root)
    file = root / "annotations" / "instances_train2017.json"
    shutil.copy(file, root / "annotations" / "instances_val2017.json")
    shutil.rmtree(root / "val2017")
    (root / "val2017").symlink_to(root / "train2017")
    return root


def coco_linked(root: Path) -> Path:
    """Four of the six as hard links of the same names."""
    coco_folder(root)
    for number in range(1, 5):
        (root / "val2017" / f"{number:03d}.png").unlink()
        os.link(root / "train2017" / f"{number:03d}.png", root / "val2017" / f"{number:03d}.png")
    return root


def voc_lists(root: Path) -> Path:
    xmls = {name: voc_xml(name, [("cat", (10, 10, 40, 40), 0)]) for name in "abc"}
    return write_voc_folder(root, xmls, {"train": ["a", "b", "c"], "val": ["b", "c"]})


@pytest.mark.parametrize(
    ("make", "count"),
    [
        (in_one_folder, "6 of the 6"),
        (with_another_spelling, "6 of the 6"),
        (coco_twice, "6 of the 6"),
        (coco_linked, "4 of the 6"),
        (voc_lists, "2 of the 2"),
    ],
)
def test_training_images_choose_no_weights(make: Callable[[Path], Path], count: str, tmp_path: Path) -> None:
    found = read_of(make(tmp_path / "set"))
    assert not found.selects
    assert found.note.startswith(f"{count} images of split 'val' are trained on, too: ")
    assert SAYS_NOTHING in found.note
    assert found.note.endswith(f"{ONLY_SHOWN}, best.safetensors is the last")


def test_who_asks_for_them_gets_them_and_is_told(tmp_path: Path) -> None:
    found = read_of(in_one_folder(tmp_path / "set"), train="train", val="train")
    assert found.selects
    assert SAYS_NOTHING in found.note
    assert ONLY_SHOWN not in found.note


def test_others_do(tmp_path: Path) -> None:
    data = coco_folder(tmp_path / "data")  # of the same names in two folders
    found = read_of(data)
    assert (found.selects, found.note) == (True, "")
    (data / "val2017" / "001.png").unlink()
    os.link(data / "train2017" / "001.png", data / "val2017" / "001.png")
    assert read_of(data).selects, "one of six"
    assert shared_images(*(load_dataset(data, split) for split in ("train", "val"))) == 1


def test_of_names_that_the_other_split_has_not_no_file_is_looked_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = coco_folder(tmp_path / "data")
    file = data / "annotations" / "instances_val2017.json"
    content = json.loads(file.read_text())
    for image in content["images"]:
        (data / "val2017" / image["file_name"]).rename(data / "val2017" / f"other{image['file_name']}")
        image["file_name"] = f"other{image['file_name']}"
    file.write_text(json.dumps(content))
    splits = [load_dataset(data, split) for split in ("train", "val")]
    monkeypatch.delattr("tood.data.splits.file_identity")
    assert shared_images(*splits) == 0


def test_nothing_is_called_mended_that_is_not(tmp_path: Path) -> None:
    said = describe(load_dataset(in_one_folder(tmp_path / "set"), "val"))
    assert said.endswith("; 6 of these images are in another split, too")


def test_a_run_takes_its_whole_length_and_its_last_weights(tmp_path: Path) -> None:
    data, out = in_one_folder(tmp_path / "set"), tmp_path / "run"
    options = ["--model", "tood_tiny", "--size", "32", "--batch-size", "6", "--workers", "0", "--device", "cpu"]
    options += ["--set", "trackers=[]", "--epochs", "2", "--out", str(out)]
    result = CliRunner().invoke(app, ["train", "--data", str(data), *options])
    told = " ".join(result.output.split())
    assert result.exit_code == 0, told
    assert ONLY_SHOWN in told
    assert "mended" not in told
    assert "best so far" not in told
    best, last = (load_weights(out / f"{name}.safetensors")[0].state_dict() for name in ("best", "last"))
    assert all(torch.equal(best[name], last[name]) for name in best)
