"""`dataset_stats`, its picture, `bench_loading`, and their commands."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from typer.testing import CliRunner

from data.loaders import small_model
from dataset_files import box_row, coco, image_row, usual_coco, voc_xml, write_coco_folder, write_voc_folder
from tood.cli.data import app
from tood.data import DataConfig, bench_loading, dataset_stats, load_dataset
from tood.data.bench import COLLATE, DECODE, READ, TRANSFORM, StageRate, advice
from tood.data.reading import ImageReader
from tood.errors import ToodError
from tood.input import InputConfig
from tood.plots import dataset_picture

runner = CliRunner()


def test_the_numbers_are_those_of_the_annotations(tmp_path: Path) -> None:
    images = [image_row(1, "", 200, 150), image_row(2), image_row(3)]
    boxes = [
        box_row(1, 1, (0, 0, 20, 40), area=700),  # small, by the area of its mask
        box_row(2, 1, (0, 0, 32, 32)),  # medium begins here
        box_row(3, 1, (0, 0, 96, 96), 5),  # large begins here
        box_row(4, 2, (10, 10, 20, 10), 5, iscrowd=1),
        box_row(5, 2, (10, 10, 30, 10), 5),
    ]
    write_coco_folder(tmp_path, coco(images, boxes, {3: "cat", 5: "dog", 8: "eel"}))
    found = dataset_stats(load_dataset(tmp_path, "train"))
    assert (found.images, found.boxes, found.crowds) == (3, 4, 1)
    assert found.boxes_an_image.tolist() == [3, 1, 0]
    assert found.by_size == {"small": 2, "medium": 1, "large": 1}
    assert [(one.name, one.boxes, one.images) for one in found.classes] == [("cat", 2, 1), ("dog", 2, 2), ("eel", 0, 0)]
    spreads = found.spreads()
    assert (spreads["image width"].smallest, spreads["image width"].median, spreads["image width"].largest) == (
        64,
        64,
        200,
    )
    assert spreads["box aspect (w/h)"].largest == 3
    np.testing.assert_allclose(found.centres[0], [10 / 200, 20 / 150])
    json.dumps(found.to_dict(), allow_nan=False)


@pytest.mark.parametrize("empty", [False, True])
def test_the_picture_is_drawn_whatever_there_is(tmp_path: Path, empty: bool) -> None:
    content = usual_coco()
    content["categories"].append({"id": 200, "name": "a very long name with $dollars$ and more of them"})
    content["annotations"] = [] if empty else [*content["annotations"], box_row(900, 3, (1, 1, 3, 30), 200)]
    write_coco_folder(tmp_path, content)
    dataset_picture(dataset_stats(load_dataset(tmp_path, "train")), tmp_path / "a.png")
    pixels = cv2.imread(str(tmp_path / "a.png"))
    assert pixels.shape[0] > 600
    assert pixels.shape[1] > 1200
    # Each of six panels has something drawn.
    for rows in np.array_split(pixels, 2):
        for panel in np.array_split(rows, 3, axis=1):
            assert (panel < 128).any(axis=2).mean() > 0.002


def test_the_command_counts_every_split_and_writes_what_is_asked(tmp_path: Path) -> None:
    xmls = {name: voc_xml(name, [("dog", (1, 1, 9, 9), 1), ("ant", (2, 3, 40, 48), 0)]) for name in "abc"}
    root = write_voc_folder(tmp_path / "voc", xmls, {"train": ["a", "b"], "val": ["c"]})
    out, json_file = tmp_path / "pictures", tmp_path / "stats.json"
    result = runner.invoke(app, ["stats", str(root), "--out", str(out), "--json", str(json_file)])
    assert result.exit_code == 0, result.output
    assert "2 difficult besides" in " ".join(result.output.split())
    assert "1 of 2 classes have no box: dog" in result.output
    assert sorted(path.name for path in out.iterdir()) == ["stats_train.png", "stats_val.png"]
    told = json.loads(json_file.read_text())
    assert [(one["split"], one["images"], one["boxes"]) for one in told] == [("train", 2, 2), ("val", 1, 1)]
    assert not list(tmp_path.glob("*.png"))
    one = runner.invoke(app, ["stats", str(root), "--split", "val"])
    assert "stats_val" not in one.output
    assert one.output.count("image, ") == 1
    assert "1 image, 0 of them without an object; 1 box" in one.output


# --- bench ------------------------------------------------------------------------------------------------------------


def photographs(root: Path, width: int, height: int, count: int = 6) -> Path:
    images = [image_row(n, f"{n}.jpg", width, height) for n in range(1, count + 1)]
    boxes = [box_row(n, n) for n in range(1, count + 1)]
    write_coco_folder(root, coco(images, boxes, {3: "cat"}))
    return root


def test_every_stage_is_measured_and_one_is_named(tmp_path: Path) -> None:
    dataset = load_dataset(photographs(tmp_path, 320, 240), "train")
    found = bench_loading(dataset, DataConfig(workers=0), small_model(64), InputConfig(64, 64), 2, images=4)
    assert found.images == 4
    assert [stage.name for stage in found.stages] == [READ, DECODE, TRANSFORM, COLLATE]
    assert sum(stage.share for stage in found.stages) == pytest.approx(1)
    assert all(stage.images_per_second > 0 for stage in found.stages)
    assert [loader.workers for loader in found.loaders] == [0, 1]
    slowest = min(found.stages, key=lambda stage: stage.images_per_second)
    assert found.limit == slowest.name
    assert found.limit in found.advice


def test_the_advice_is_what_helps(tmp_path: Path) -> None:
    dataset = load_dataset(photographs(tmp_path, 400, 300), "train")
    decoding = StageRate(DECODE, 10, 0.6)
    whole, half = (ImageReader(lambda height, width, part=part: part) for part in (1.0, 0.5))
    assert advice(dataset, whole, decoding) == (
        "what limits a worker is to decode (60 % of its time): `--set data.cache=true` keeps the decoded images in "
        "0.0022 GB of memory"
    )
    assert "`--set data.scaled_jpeg=true`" in advice(dataset, half, decoding)
    assert "data.cache=true" in advice(dataset, half, decoding, scaled_jpeg=True)
    large = replace(dataset, images=tuple(replace(image, width=30_000, height=10_000) for image in dataset.images))
    assert "`--set data.cache=FOLDER` keeps the decoded images there, 5 GB" in advice(
        large, whole, StageRate(READ, 10, 0.6)
    )
    assert "augment.photometric=0" in advice(dataset, whole, StageRate(TRANSFORM, 10, 0.6))
    assert "take more workers" in advice(dataset, whole, StageRate(COLLATE, 10, 0.6))


def test_what_cannot_be_measured_is_one_sentence(tmp_path: Path) -> None:
    dataset = load_dataset(photographs(tmp_path, 64, 48), "train")
    dataset.images[0].path.unlink()
    with pytest.raises(ToodError, match="No such file"):
        bench_loading(dataset, DataConfig(workers=0), small_model(64), InputConfig(64, 64), 2)
    with pytest.raises(ToodError, match="at least one image"):
        bench_loading(dataset, DataConfig(), small_model(64), InputConfig(64, 64), 2, images=0)


def test_the_bench_command(tmp_path: Path) -> None:
    photographs(tmp_path / "data", 96, 64)
    options = ["--images", "4", "--batch-size", "2", "--workers", "1", "--size", "64"]
    result = runner.invoke(app, ["bench", str(tmp_path / "data"), *options, "--json", str(tmp_path / "bench.json")])
    assert result.exit_code == 0, result.output
    for word in ("read the file", "decode", "resize and augment", "collate", "whole loader, 1 worker", "what limits"):
        assert word in result.output
    assert json.loads((tmp_path / "bench.json").read_text())["images"] == 4
