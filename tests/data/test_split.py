"""Dividing a dataset: every image once, every class in each part where it can be, the same for the same seed."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from dataset_files import (
    box_row,
    coco,
    image_row,
    voc_xml,
    write_coco_folder,
    write_image,
    write_voc_folder,
    write_yolo_folder,
)
from tood.cli.data import app
from tood.data import available_splits, load_dataset, pick_splits, split_dataset
from tood.data.split import stratify
from tood.errors import ToodError

runner = CliRunner()


def coco_folder(root: Path, count: int = 30) -> Path:
    """Every image shows a cat, every third a dog, two of them a newt."""
    images = [image_row(number) for number in range(1, count + 1)]
    boxes = [box_row(number, number, category=3) for number in range(1, count + 1)]
    boxes += [box_row(100 + number, number, (30, 20, 9, 9), 90) for number in range(3, count + 1, 3)]
    boxes += [box_row(200 + number, number, (1, 1, 5, 5), 7) for number in (5, 6)]
    write_coco_folder(root, coco(images, boxes, {90: "dog", 3: "cat", 7: "newt"}))
    return root


def test_every_image_goes_to_one_split_with_its_boxes(tmp_path: Path) -> None:
    before = load_dataset(coco_folder(tmp_path / "all"), "train")
    report = split_dataset(tmp_path / "all", tmp_path / "out", val=0.2, test=0.1)
    assert list(report.images) == ["train", "val", "test"]
    parts = [load_dataset(tmp_path / "out", name) for name in report.images]
    assert [len(part) for part in parts] == list(report.images.values())
    assert sum(map(len, parts)) == 30
    assert abs(report.images["val"] - 6) <= 1
    assert abs(report.images["test"] - 3) <= 1
    again = {image.id: image for part in parts for image in part.images}
    for image in before.images:
        np.testing.assert_allclose(again[image.id].boxes, image.boxes)
        assert again[image.id].labels.tolist() == image.labels.tolist()
        assert again[image.id].path.read_bytes() == image.path.read_bytes()
    assert all(part.categories == before.categories for part in parts)
    picked = pick_splits(tmp_path / "out")
    assert (picked.train, picked.val, picked.test, picked.note) == ("train", "val", "test", "")


def test_rare_classes_are_in_each_split_and_what_cannot_be_is_told(tmp_path: Path) -> None:
    report = split_dataset(coco_folder(tmp_path / "all"), tmp_path / "out", val=0.2)
    images = dict(report.class_images)
    assert images["newt"] == (1, 1)
    assert sum(images["dog"]) == 10
    assert images["dog"][1] in (2, 3)
    assert not any("has no image" in note for note in report.notes)
    three = split_dataset(tmp_path / "all", tmp_path / "three", val=0.2, test=0.2)
    assert dict(three.class_images)["newt"][0] == 2, "too few for three: all are to be learned from"
    assert "val: has no image of newt: too few images show it" in three.notes


def test_one_file_under_two_ids_goes_to_one_part(tmp_path: Path) -> None:
    rows = [image_row(number) for number in range(1, 21)]
    rows += [image_row(number + 100, f"{number}.png") for number in range(1, 11)]
    rows += [image_row(number + 200, f"link{number}.png") for number in range(11, 21)]
    boxes = [box_row(row["id"], row["id"]) for row in rows]
    write_coco_folder(tmp_path / "all", coco(rows, boxes, {3: "cat"}))
    for number in range(11, 21):
        link = tmp_path / "all" / "train2017" / f"link{number}.png"
        link.unlink()
        link.symlink_to(f"{number}.png")
    for number in range(1, 11):
        write_image(tmp_path / "all" / "train2017" / f"{number}.png", seed=number)
    split_dataset(tmp_path / "all", tmp_path / "out", val=0.4)
    parts = [load_dataset(tmp_path / "out", name) for name in ("train", "val")]
    assert sum(map(len, parts)) == 40
    contents = [{image.path.read_bytes() for image in part.images} for part in parts]
    assert not contents[0] & contents[1]


def test_the_seed_decides(tmp_path: Path) -> None:
    coco_folder(tmp_path / "all")

    def names(out: str, seed: int) -> list[str]:
        split_dataset(tmp_path / "all", tmp_path / out, seed=seed)
        return [image.name for image in load_dataset(tmp_path / out, "val").images]

    assert names("a", 0) == names("b", 0)
    assert names("a2", 0) != names("c", 1)


@pytest.mark.parametrize("format_", ["voc", "yolo"])
def test_other_formats_stay_what_they_are(tmp_path: Path, format_: str) -> None:
    if format_ == "voc":
        xmls = {f"{n}": voc_xml(f"{n}", [("ant" if n % 2 else "bee", (2, 3, 40, 48), n % 3 == 0)]) for n in range(10)}
        root = write_voc_folder(tmp_path / "all", xmls, {})
    else:
        lines = {f"train/{n}": f"{n % 2} 0.5 0.5 0.2 0.2\n" for n in range(10)}
        root = write_yolo_folder(tmp_path / "all", lines, "train: images/train\nnames: [ant, bee]\n")
    report = split_dataset(root, tmp_path / "out")
    assert report.format == format_
    assert list(available_splits(tmp_path / "out")) == ["train", "val"]
    train, val = (load_dataset(tmp_path / "out", name) for name in ("train", "val"))
    assert (train.format, len(train), len(val)) == (format_, 8, 2)
    assert train.class_names == val.class_names == ("ant", "bee")
    assert sorted(image.labels[0] for image in val.images) == [0, 1]


@settings(max_examples=60)
@given(
    rates=st.lists(st.floats(0, 1), min_size=0, max_size=8),
    count=st.integers(3, 80),
    seed=st.integers(0, 1000),
    shares=st.sampled_from(([0.8, 0.2], [0.5, 0.5], [0.7, 0.2, 0.1], [0.98, 0.01, 0.01])),
)
def test_stratified_parts(rates: list[float], count: int, seed: int, shares: list[float]) -> None:
    present = np.random.default_rng(seed).random((count, len(rates))) < np.array(rates)
    part = stratify(present, shares, seed)
    assert part.shape == (count,)
    assert set(part.tolist()) == set(range(len(shares))), "none is empty"
    np.testing.assert_array_equal(part, stratify(present, shares, seed))
    sizes = np.bincount(part, minlength=len(shares))
    # Each class may ask for one image of its own in each part.
    assert (np.abs(sizes - count * np.array(shares)) <= len(rates) + 2).all()
    for column in present.T:
        spread = np.bincount(part[column], minlength=len(shares))
        if column.sum() >= 4 * len(shares) and len(rates) <= 3:
            assert (spread > 0).all()


def test_a_single_class_is_divided_exactly() -> None:
    part = stratify(np.ones((100, 1), bool), [0.7, 0.2, 0.1], 3)
    assert np.bincount(part).tolist() == [70, 20, 10]


def test_what_cannot_be_divided_is_one_sentence(tmp_path: Path) -> None:
    coco_folder(tmp_path / "all")
    split_dataset(tmp_path / "all", tmp_path / "out")
    with pytest.raises(ToodError, match="has the splits train, val already; name the one to divide with --split"):
        split_dataset(tmp_path / "out", tmp_path / "again")
    assert sum(split_dataset(tmp_path / "out", tmp_path / "again", split="train").images.values()) == 24
    for val, test in ((0.0, 0.0), (0.6, 0.5), (1.0, 0.0), (-0.1, 0.3)):
        with pytest.raises(ToodError, match="give numbers that leave some for training"):
            split_dataset(tmp_path / "all", tmp_path / "bad", val=val, test=test)
    with pytest.raises(ToodError, match="is not empty"):
        split_dataset(tmp_path / "all", tmp_path / "out")
    assert split_dataset(tmp_path / "all", tmp_path / "out", overwrite=True).images
    single = write_coco_folder(tmp_path / "one", coco([image_row(1)], [box_row(1, 1)], {3: "cat"})).parent.parent
    with pytest.raises(ToodError, match="1 image cannot be divided into train and val"):
        split_dataset(single, tmp_path / "bad")
    assert not (tmp_path / "bad").exists()


def test_the_command(tmp_path: Path) -> None:
    coco_folder(tmp_path / "all")
    out = tmp_path / "out"
    result = runner.invoke(app, ["split", str(tmp_path / "all"), "--out", str(out), "--val", "0.2", "--test", "0.2"])
    assert result.exit_code == 0, result.output
    assert "test: 6 images (20 %)" in result.output
    assert "has no image of newt" in " ".join(result.output.split())
    assert json.loads((out / "annotations" / "instances_val.json").read_text())["images"]
