"""`tood eval` and `tood predict` as a person runs them."""

from __future__ import annotations

import csv
import json
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner, Result

import tood.evaluation as tood_evaluation
from bright_square import picture, save_picture
from half_written import half_written
from signals_at import signal_at
from tood.cli.main import app
from tood.evaluation import DetectionTable


def tood(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def refused(result: Result, sentence: str) -> None:
    assert result.exit_code == 2, result.output
    assert sentence in " ".join(result.stderr.split())
    assert "Traceback" not in result.output


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    for name, size in (("a.jpg", (40, 60)), ("sub/a.jpg", (30, 30)), ("c.png", (80, 50))):
        save_picture(tmp_path / "photos" / name, picture(*size, (5, 5, 25, 25)))
    return tmp_path / "photos"


@pytest.fixture
def coco(photos: Path) -> Path:
    root = photos.parent / "coco"
    images, annotations = [], []
    for i, path in enumerate(sorted(photos.rglob("*.*g"))):
        with Image.open(path) as image:
            save_picture(root / "val2017" / f"{i}.png", np.asarray(image))
            images.append({"id": i, "file_name": f"{i}.png", "width": image.width, "height": image.height})
        sides = {"bbox": [5, 5, 20, 20], "area": 400, "iscrowd": 0}
        annotations.append({"id": i + 1, "image_id": i, "category_id": 8, **sides})
    content = {"images": images, "annotations": annotations, "categories": [{"id": 8, "name": "dog"}]}
    (root / "annotations").mkdir()
    (root / "annotations" / "instances_val2017.json").write_text(json.dumps(content))
    return root


@pytest.mark.parametrize("place", [(tood_evaluation, "detect"), (Path, "replace")], ids=["detecting", "writing"])
def test_eval_that_is_stopped_leaves_nothing_half_written(
    weights: Path, coco: Path, tmp_path: Path, place: tuple[Any, str]
) -> None:
    out, figures = tmp_path / "out", tmp_path / "figures.json"
    figures.write_text("earlier")
    with signal_at(*place):
        result = tood("eval", "--model", weights, "--data", coco, "--workers", 0, "--out", out, "--json", figures)
    assert result.exit_code == 128 + signal.SIGTERM
    assert result.stderr.endswith("tood: stopped; what was not finished is removed\n")
    assert figures.read_text() == "earlier"
    assert [*out.rglob("*"), *tmp_path.glob(".*")] == []


def test_what_a_killed_eval_left_is_gone_the_next_time(weights: Path, coco: Path, tmp_path: Path) -> None:
    out, figures = tmp_path / "out", tmp_path / "figures" / "now.json"
    for path in (out / "detections.json", figures):
        path.parent.mkdir()
        half_written(path)
    result = tood("eval", "--model", weights, "--data", coco, "--workers", 0, "--out", out, "--json", figures)
    assert result.exit_code == 0, result.output
    assert sorted(path.name for path in out.iterdir()) == ["detections.json", "metrics.json"]
    assert list(figures.parent.iterdir()) == [figures]


def test_predict_writes_pictures_json_and_csv(weights: Path, photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    result = tood("predict", "--model", weights, photos, "--out", out, "--json", "--csv", "--threshold", 0.1)
    assert result.exit_code == 0, result.output
    assert f"3 pictures done. Results: {out}" in result.stdout
    files = {path.name for path in out.iterdir() if not path.name.startswith(".")}
    assert files == {"a.jpg", "a_2.jpg", "c.png", "predictions.json", "predictions.csv"}
    entries = json.loads((out / "predictions.json").read_text())
    assert [Path(entry["image"]).name for entry in entries] == ["a.jpg", "c.png", "a.jpg"]
    assert (entries[1]["width"], entries[1]["height"]) == (50, 80)
    with (out / "predictions.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == sum(len(entry["detections"]) for entry in entries) > 0
    first = entries[0]["detections"][0]
    assert [float(rows[0][side]) for side in ("x1", "y1", "x2", "y2")] == first["box"]
    assert rows[0]["name"] == first["name"] in ("cat", "dog")
    assert min(float(row["score"]) for row in rows) > 0.1
    with Image.open(out / "c.png") as drawn:
        assert drawn.size == (50, 80)


def test_predict_goes_on_after_a_broken_picture_and_says_so_at_the_end(
    weights: Path, photos: Path, tmp_path: Path
) -> None:
    (photos / "b.jpg").write_bytes(b"not a picture")
    out = tmp_path / "out"
    result = tood("predict", "--model", weights, photos, "no/such.png", "--out", out, "--json")
    refused(result, f"{photos / 'b.jpg'}: is not an image")
    refused(result, "there is no image file or folder no/such.png")
    assert len(json.loads((out / "predictions.json").read_text())) == 3
    assert "3 pictures done" in result.stdout


def test_predict_leaves_nothing_where_nothing_could_be_read(weights: Path, tmp_path: Path) -> None:
    refused(tood("predict", "--model", weights, "no.png", "--out", tmp_path / "out", "--json"), "no image file")
    assert not (tmp_path / "out").exists()


def test_predict_never_overwrites_its_sources(weights: Path, photos: Path) -> None:
    before = (photos / "a.jpg").read_bytes()
    assert tood("predict", "--model", weights, photos / "a.jpg", "--out", photos).exit_code == 0
    assert (photos / "a.jpg").read_bytes() == before
    assert (photos / "a_2.jpg").exists()


def test_predict_without_pictures_only_says_what_it_found(
    weights: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = tood("predict", "--model", weights, photos / "c.png", "--no-save-images")
    assert result.exit_code == 0, result.output
    assert f"{photos / 'c.png'}: " in result.stdout
    assert not (tmp_path / "runs").exists()


def test_eval_of_a_model_and_of_its_detections_agree(weights: Path, coco: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    result = tood("eval", "--model", weights, "--data", coco, "--out", out, "--workers", 0)
    assert result.exit_code == 0, result.output
    assert "AP50" in result.stdout
    figures = json.loads((out / "metrics.json").read_text())
    assert figures["images"] == 3
    assert list(figures["per_class"]) == ["dog"]
    entries = json.loads((out / "detections.json").read_text())
    assert {entry["category_id"] for entry in entries} == {8}
    (coco / "val2017" / "0.png").unlink()  # the pictures are not needed for what follows
    arguments = ["--detections", out / "detections.json", "--split", "val", "--json", tmp_path / "m.json"]
    again = tood("eval", "--data", coco, *arguments)
    assert again.exit_code == 0, again.output
    assert json.loads((tmp_path / "m.json").read_text()) == figures
    one_file = tood("eval", "--data", coco / "annotations" / "instances_val2017.json", *arguments[:2])
    assert one_file.exit_code == 0, one_file.output


def test_wrong_calls_are_one_sentence_and_leave_nothing(weights: Path, coco: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    (tmp_path / "d.json").write_text("[{}]")
    (tmp_path / "w.safetensors").write_bytes(b"\0" * 50)
    for arguments, sentence in (
        ((), "give either --model"),
        (("--model", weights, "--detections", tmp_path / "d.json"), "give either --model"),
        (("--model", tmp_path / "x.safetensors"), "no weights file"),
        (("--model", tmp_path / "w.safetensors"), "not a readable safetensors file"),
        (("--model", "tood_tiny"), "names an architecture"),
        (("--detections", tmp_path / "d.json"), "detection 0: image_id"),
        (("--model", weights, "--device", "abacus"), "no device 'abacus'"),
        (("--model", weights, "--device", "xla"), "no device 'xla'"),
        (("--model", weights, "--split", "nonsense"), "nonsense"),
    ):
        refused(tood("eval", "--data", coco, "--out", out, *arguments), sentence)
    refused(tood("eval", "--model", weights, "--data", tmp_path / "none"), str(tmp_path / "none"))
    annotations = coco / "annotations" / "instances_val2017.json"
    annotations.write_text(annotations.read_text().replace('"dog"', '"bird"'))
    refused(tood("eval", "--model", weights, "--data", coco, "--out", out, "--workers", 0), "does not know 1 of the 1")
    refused(tood("predict", "--model", tmp_path / "x", "a.png", "--out", out), "no weights file")
    assert not out.exists()


def test_detections_of_a_split_without_annotations_are_written(weights: Path, coco: Path, tmp_path: Path) -> None:
    path = coco / "annotations" / "instances_val2017.json"
    content = json.loads(path.read_text())
    del content["annotations"]
    path.unlink()
    (coco / "val2017").rename(coco / "test2017")
    (coco / "annotations" / "image_info_test2017.json").write_text(json.dumps(content))
    arguments = ("eval", "--model", weights, "--data", coco, "--split", "test", "--workers", 0)
    refused(tood(*arguments), "has no annotations to compare with")
    result = tood(*arguments, "--out", tmp_path / "out")
    assert result.exit_code == 0, result.output
    assert len(DetectionTable.read(tmp_path / "out" / "detections.json")) > 0
    assert not (tmp_path / "out" / "metrics.json").exists()
