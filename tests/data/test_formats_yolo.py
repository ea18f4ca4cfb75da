"""YOLO folders are read as they are meant, and broken ones refused in one sentence."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dataset_files import write_image, write_yolo_folder
from tood.data import available_splits, load_dataset, pick_splits
from tood.errors import ToodError

GOOD = {"train/a": "0 0.5 0.5 0.25 0.5\n1 0.25 0.25 0.5 0.5\n", "train/sub/b": None, "val/c": "1 0.5 0.5 1 1"}


def test_boxes_are_in_pixels_of_the_image(tmp_path: Path) -> None:
    dataset = load_dataset(write_yolo_folder(tmp_path, GOOD), "train")
    assert dataset.format == "yolo"
    assert [(c.id, c.name) for c in dataset.categories] == [(0, "cat"), (1, "dog")]
    assert [image.name for image in dataset.images] == ["a.png", "sub/b.png"]
    np.testing.assert_allclose(dataset.images[0].boxes, [[24, 12, 40, 36], [0, 0, 32, 24]])
    assert dataset.images[0].labels.tolist() == [0, 1]
    assert len(dataset.images[1].boxes) == 0
    assert dataset.problems == ()


def test_a_polygon_becomes_its_box(tmp_path: Path) -> None:
    write_yolo_folder(tmp_path, {"train/a": "1 0.25 0.5 0.5 0.25 0.75 0.75\n"})
    (tmp_path / "images" / "val").mkdir()
    np.testing.assert_allclose(load_dataset(tmp_path, "train").images[0].boxes, [[16, 12, 48, 36]])


@pytest.mark.parametrize(
    "text",
    [
        "path: .\ntrain: images/train\nval: images/val\nnames: {0: cat, 1: dog}\nnc: 2\n",
        "train: ../images/train\nval: ../images/val\nnames: [cat, dog]\n",
        "path: /no/such/place\ntrain: [images/train]\nvalid: images/val\nnames: [cat, dog]\n",
        "train: train.txt\nval: images/val\nnames: [cat, dog]\n",
    ],
)
def test_ways_to_name_the_splits(tmp_path: Path, text: str) -> None:
    write_yolo_folder(tmp_path, GOOD, text)
    (tmp_path / "train.txt").write_text("./images/train/a.png\nimages/train/sub/b.png\n\n")
    assert list(available_splits(tmp_path)) == ["train", "val"]
    dataset = load_dataset(tmp_path, "train")
    assert dataset.box_count == 2
    assert len(dataset) == 2
    assert dataset.class_names == ("cat", "dog")
    assert load_dataset(tmp_path / "data.yaml", "val").box_count == 1


def test_labels_beside_the_images(tmp_path: Path) -> None:
    write_image(tmp_path / "train" / "a.png")
    (tmp_path / "train" / "a.txt").write_text("0 0.5 0.5 0.5 0.5")
    (tmp_path / "mine.yaml").write_text("train: train\nnc: 1\nnames: [cat]")
    assert load_dataset(tmp_path, "train").box_count == 1


def test_test_split_without_labels(tmp_path: Path) -> None:
    text = "train: images/train\nval: images/val\ntest: images/test\nnames: [cat, dog]\n"
    write_yolo_folder(tmp_path, {**GOOD, "test/d": None}, text)
    assert not load_dataset(tmp_path, "test").annotated
    assert pick_splits(tmp_path).test is None
    assert pick_splits(tmp_path).evaluation == "val"


def test_clipped_and_dropped_boxes_tell_file_and_line(tmp_path: Path) -> None:
    lines = "0 0.5 0.5 0.1 0.1\n0 1.0 0.5 0.5 0.5\n\n0 0.5 0.5 0 0.5\n0 nan 0.5 0.1 0.1\n0 320 240 64 48\n"
    write_yolo_folder(tmp_path, {"train/a": lines, "val/b": None})
    dataset = load_dataset(tmp_path, "train")
    assert dataset.box_count == 2
    told = [(problem.kind, problem.message.split(":")[0]) for problem in dataset.problems]
    assert sorted(told) == [
        ("box_clipped", "line 2"),
        ("box_dropped", "line 4"),
        ("box_dropped", "line 5"),
        ("box_dropped", "line 6"),
    ]
    assert any("are its numbers pixels?" in problem.message for problem in dataset.problems)
    assert all(problem.file.endswith("labels/train/a.txt") for problem in dataset.problems)


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("2 0.5 0.5 0.1 0.1", r"a\.txt, image 1: line 1: class 2 is not among the 2 classes"),
        ("-1 0.5 0.5 0.1 0.1", "class -1"),
        ("0.5 0.5 0.5 0.1 0.1", "class 0.5"),
        ("nan 0.5 0.5 0.1 0.1", "class nan"),
        ("cat 0.5 0.5 0.1 0.1", "not made of numbers"),
        ("0 0.5 0.5 0.1", "has 4 numbers"),
        ("0 0.5 0.5 0.1 0.1 0.9", "has 6 numbers"),
    ],
)
def test_bad_lines_are_refused(tmp_path: Path, line: str, sentence: str) -> None:
    write_yolo_folder(tmp_path, {"train/a": line, "val/b": None})
    with pytest.raises(ToodError, match=sentence):
        load_dataset(tmp_path, "train")


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("train: [", "broken yaml"),
        ("- 1", "no YOLO dataset"),
        ("train: images/train\nval: images/val\nnames: 5", "'names' is to be the list"),
        ("train: images/train\nval: images/val\nnames: [a]\nnc: 2", "'nc' is 2, but 'names' has 1"),
        ("train: images/train\nval: images/val\nnames: {1: a}", "keys of 'names'"),
        ("train: nowhere\nnames: [a]", "'train' names 'nowhere', but there is no"),
        ("train: {a: b}\nnames: [a]", "not a folder, a txt list"),
        ("names: [a]", "names no split"),
        ("path: 3\ntrain: images/train\nnames: [a]", "'path' is 3"),
    ],
)
def test_bad_yaml_is_refused(tmp_path: Path, text: str, sentence: str) -> None:
    write_yolo_folder(tmp_path, GOOD, text)
    with pytest.raises(ToodError, match=sentence):
        load_dataset(tmp_path, "train")


def test_no_label_at_all_is_refused(tmp_path: Path) -> None:
    write_yolo_folder(tmp_path, {"train/a": None, "val/b": None})
    with pytest.raises(ToodError, match="none of its 1 images has a label file"):
        load_dataset(tmp_path, "train")


def test_missing_and_unreadable_images_are_refused(tmp_path: Path) -> None:
    write_yolo_folder(tmp_path, GOOD, "train: train.txt\nval: images/val\nnames: [cat, dog]\n")
    (tmp_path / "train.txt").write_text("images/train/gone.png\n")
    with pytest.raises(ToodError, match=r"gone\.png: no such image file"):
        load_dataset(tmp_path, "train")
    (tmp_path / "images" / "val" / "c.png").write_bytes(b"no image")
    with pytest.raises(ToodError, match=r"c\.png.* is not an image"):
        load_dataset(tmp_path, "val")


@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=st.text(alphabet="0123456789.-+ename \n\t", max_size=60))
def test_any_label_text_gives_a_dataset_or_a_sentence(tmp_path: Path, text: str) -> None:
    if not (tmp_path / "data.yaml").exists():
        write_yolo_folder(tmp_path, {"train/a": "", "val/b": None})
    (tmp_path / "labels" / "train" / "a.txt").write_text(text)
    try:
        dataset = load_dataset(tmp_path, "train")
    except ToodError:
        return
    assert np.isfinite(dataset.images[0].boxes).all()
    assert (dataset.images[0].boxes[:, 2:] <= [64, 48]).all()


@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=st.text(alphabet="trainvl: []{}\n-'\"&*!|>#,ncmes0", max_size=40))
def test_any_yaml_gives_a_dataset_or_a_sentence(tmp_path: Path, text: str) -> None:
    (tmp_path / "data.yaml").write_text(text)
    with pytest.raises(ToodError):
        load_dataset(tmp_path, "train")
