"""Which label file belongs to a picture, and what its lines say."""

from __future__ import annotations

import codecs
import os
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dataset_files import write_image, write_yolo_folder
from tood.data import check_dataset, load_dataset, split_dataset
from tood.data.dataset import Problem
from tood.data.formats.yolo_labels import Keypoints, LabelFinder, read_labels
from tood.errors import ToodError

BOX = "0 0.5 0.5 0.25 0.5\n"
PIXELS = [[24, 12, 40, 36]]  # of BOX, in 64 x 48


def one(root: Path, content: str | bytes, yaml_text: str = "") -> Path:
    """A folder with one labelled picture to train on."""
    write_yolo_folder(root, {"train/a": "", "val/b": None}, yaml_text)
    label = root / "labels" / "train" / "a.txt"
    label.write_bytes(content if isinstance(content, bytes) else content.encode())
    return root


# --- where ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("image", "label"),
    [
        ("images/train/a.jpg", "labels/train/a.txt"),
        ("images/train/a.jpg", "images/train/a.txt"),  # beside it, in a folder called images
        ("train/images/a.jpg", "train/labels/a.txt"),
        ("train/images/a.jpg", "train/images/a.txt"),
        ("Images/train/a.JPG", "Labels/train/a.txt"),
        ("Images/train/a.jpg", "labels/train/a.txt"),
        ("images/train/a.jpg", "LABELS/train/a.TXT"),
        ("images/Train/D/images/a.jpg", "labels/Train/D/images/a.txt"),  # CVAT
        ("images/Train/D/images/a.jpg", "images/Train/D/labels/a.txt"),
        ("JPEGImages/a.jpg", "labels/a.txt"),  # darknet's VOC
        ("pictures/a.b.jpg", "pictures/a.b.txt"),
        (unicodedata.normalize("NFC", "images/é.jpg"), unicodedata.normalize("NFD", "labels/é.txt")),
    ],
)
def test_where_labels_are_found(tmp_path: Path, image: str, label: str) -> None:
    write_image(tmp_path / image)
    (tmp_path / label).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / label).write_text(BOX)
    top = image.split("/")[0]
    (tmp_path / "data.yaml").write_text(f"train: {top}\nnames: [cat]\n")
    np.testing.assert_allclose(load_dataset(tmp_path, "train").images[0].boxes, PIXELS)


def test_a_folder_called_images_above_the_dataset_changes_nothing(tmp_path: Path) -> None:
    root = tmp_path / "images" / "mine"
    write_image(root / "train" / "a.png")
    (root / "train" / "a.txt").write_text(BOX)
    (root / "data.yaml").write_text("train: train\nnames: [cat]\n")
    np.testing.assert_allclose(load_dataset(root, "train").images[0].boxes, PIXELS)


def test_half_the_labels_beside_and_half_apart(tmp_path: Path) -> None:
    for name in "ab":
        write_image(tmp_path / "images" / f"{name}.png")
    (tmp_path / "labels").mkdir()
    (tmp_path / "labels" / "a.txt").write_text(BOX)
    (tmp_path / "images" / "b.txt").write_text(BOX)
    (tmp_path / "data.yaml").write_text("train: images\nnames: [cat]\n")
    assert [len(image.boxes) for image in load_dataset(tmp_path, "train").images] == [1, 1]


def test_of_two_label_files_the_one_in_labels_is_read_and_the_other_told(tmp_path: Path) -> None:
    one(tmp_path, BOX)
    (tmp_path / "images" / "train" / "a.txt").write_text("1 0.1 0.1 0.1 0.1\n")
    dataset = load_dataset(tmp_path, "train")
    np.testing.assert_allclose(dataset.images[0].boxes, PIXELS)
    assert any("1 second label files of a picture" in note for note in dataset.notes)


def test_pictures_without_a_label_file_are_counted(tmp_path: Path) -> None:
    one(tmp_path, BOX)
    assert load_dataset(tmp_path, "train").notes == ()
    write_image(tmp_path / "images" / "train" / "c.png")
    assert load_dataset(tmp_path, "train").notes == ("1 of 2 pictures have no label file: nothing is on them",)


def test_labels_in_another_folder_are_pointed_at(tmp_path: Path) -> None:
    one(tmp_path, BOX)
    (tmp_path / "labels" / "train").rename(tmp_path / "txt")
    with pytest.raises(ToodError, match=f"there is one in {tmp_path}/txt: move such files to {tmp_path}/labels/train"):
        load_dataset(tmp_path, "train")


def test_two_pictures_never_share_a_label_file_unsaid(tmp_path: Path) -> None:
    one(tmp_path, BOX)
    write_image(tmp_path / "images" / "train" / "a.jpg", 80, 60)
    report = check_dataset(tmp_path, "train")
    (problem,) = (problem for problem in report.problems if problem.kind == "labels_shared")
    assert problem.severity == "error"
    assert "a.jpg" in problem.message
    assert "a.png" in problem.message
    with pytest.raises(ToodError, match=r"labels/train/a\.txt: would be the label file of .*rename or remove"):
        load_dataset(tmp_path, "train")
    (tmp_path / "images" / "train" / "a.jpg").rename(tmp_path / "images" / "train" / "c.jpg")
    assert load_dataset(tmp_path, "train").box_count == 1


def test_nor_do_two_pictures_of_two_splits(tmp_path: Path) -> None:
    one(tmp_path, BOX, "train: train.txt\nval: val.txt\nnames: [cat]\n")
    write_image(tmp_path / "images" / "train" / "a.jpg", 80, 60)
    (tmp_path / "train.txt").write_text("images/train/a.png\n")
    (tmp_path / "val.txt").write_text("images/train/a.jpg\n")
    for split in ("train", "val"):
        with pytest.raises(ToodError, match="would be the label file of"):
            load_dataset(tmp_path, split)


# --- twice ------------------------------------------------------------------------------------------------------------


def test_a_file_under_several_names_is_one_picture(tmp_path: Path) -> None:
    one(tmp_path, BOX, "train: train.txt\nnames: [cat]\n")
    pictures = tmp_path / "images" / "train"
    (tmp_path / "images" / "link").symlink_to(pictures)
    (pictures / "hard.png").hardlink_to(pictures / "a.png")
    for number in range(8):
        write_image(pictures / f"{number}.png", seed=number + 10)
        (tmp_path / "labels" / "train" / f"{number}.txt").write_text(BOX)
    lines = ["images/train/a.png", "./images/train/a.png", "images/../images/train/a.png", "images/link/a.png"]
    lines += ["images\\train\\a.png", str(pictures / "a.png"), "images/train/hard.png"]
    lines += [f"images/train/{number}.png" for number in range(8)]
    (tmp_path / "train.txt").write_text("\n".join(lines))
    dataset = load_dataset(tmp_path, "train")
    assert len(dataset) == 9
    assert dataset.box_count == 9
    assert [problem.kind for problem in dataset.problems] == ["duplicate_file"]
    split_dataset(tmp_path, tmp_path.parent / f"{tmp_path.name}-out", val=0.4)
    parts = [load_dataset(tmp_path.parent / f"{tmp_path.name}-out", name) for name in ("train", "val")]
    contents = [{image.path.read_bytes() for image in part.images} for part in parts]
    assert not contents[0] & contents[1]
    assert sum(map(len, contents)) == 9


def test_one_picture_with_two_different_labels_is_refused(tmp_path: Path) -> None:
    one(tmp_path, BOX)
    pictures, labels = tmp_path / "images" / "train", tmp_path / "labels" / "train"
    (pictures / "copy.png").symlink_to(pictures / "a.png")
    (labels / "copy.txt").write_text(BOX)
    assert len(load_dataset(tmp_path, "train")) == 1, "the same labels"
    (labels / "copy.txt").write_text("1 0.1 0.1 0.1 0.1\n")
    with pytest.raises(ToodError, match="one picture of several names whose labels differ"):
        load_dataset(tmp_path, "train")


@pytest.mark.parametrize("how", ["the same line", "another spelling", "a link", "the same folder"])
def test_a_picture_in_two_splits_is_told(tmp_path: Path, how: str) -> None:
    text = "train: train.txt\nval: val.txt\nnames: [cat]\n"
    one(tmp_path, BOX, text if how != "the same folder" else "train: images/train\nval: images/train\nnames: [cat]\n")
    pictures = tmp_path / "images" / "train"
    (pictures.parent / "link.png").symlink_to(pictures / "a.png")
    (tmp_path / "train.txt").write_text("images/train/a.png\n")
    other = {"another spelling": f"{pictures}/../train/a.png", "a link": "images/link.png"}
    (tmp_path / "val.txt").write_text(other.get(how, "images/train/a.png") + "\nimages/val/b.png\n")
    if how == "a link":
        (tmp_path / "labels" / "link.txt").write_text(BOX)
    problems = load_dataset(tmp_path, "val").problems
    assert [(problem.kind, problem.severity) for problem in problems] == [("in_two_splits", "warning")]
    assert "is in split 'train', too" in problems[0].message
    assert load_dataset(tmp_path, "train").problems == ()


# --- lines ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "content",
    [
        BOX,
        "0.0 0.5 0.5 0.25 0.5",
        "0\t0.5\t0.5\t0.25\t0.5\r\n",
        "0,0.5,0.5,0.25,0.5\n",
        "0, 0.5, 0.5, 0.25, 0.5\n",
        "\n \n0 0.5 0.5 0.25 0.5\n\n",
        codecs.BOM_UTF8 + BOX.encode(),
        codecs.BOM_UTF16_LE + BOX.encode("utf-16-le"),
        "0 0.375 0.25 0.625 0.25 0.625 0.75 0.375 0.75\n",  # four corners
        "0 0.375 0.5 0.5 0.25 0.625 0.5 0.5 0.75 0.4 0.6\n",  # a polygon
        "0 0.5 0.5 0.25 0.5 17\n",  # a track id
    ],
)
def test_ways_to_write_a_box(tmp_path: Path, content: str | bytes) -> None:
    dataset = load_dataset(one(tmp_path, content), "train")
    np.testing.assert_allclose(dataset.images[0].boxes, PIXELS, atol=1e-5)
    assert dataset.images[0].labels.tolist() == [0]


@pytest.mark.parametrize("content", ["", "\n", " \n\t\n\r\n", codecs.BOM_UTF8])
def test_an_empty_label_file_says_that_there_is_nothing(tmp_path: Path, content: str | bytes) -> None:
    dataset = load_dataset(one(tmp_path, content), "train")
    assert dataset.annotated
    assert dataset.box_count == 0
    assert dataset.problems == ()


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("0 0.5 0.5 0.25 0.5 0.87", "confidence.*predictions, not labels; cut the last column"),
        ("0 0,5 0,5 0,25 0,5", "not made of numbers"),
        ("0 0,5 0,5", "not made of numbers"),
        ("0;0.5;0.5;0.25;0.5", "not made of numbers"),
        ("1_0 0.5 0.5 0.25 0.5", "not made of numbers"),
        ("0 0.5 0.5 0.25 0.5 0.1 0.2 0.3", "has 8 numbers"),
    ],
)
def test_lines_that_mean_something_else_are_refused(tmp_path: Path, line: str, sentence: str) -> None:
    with pytest.raises(ToodError, match=sentence):
        load_dataset(one(tmp_path, line), "train")


@pytest.mark.parametrize("shape", ["[2, 3]", "[3, 2]", "[1, 2]", "['17', 3]"])
def test_keypoints_are_no_polygon(tmp_path: Path, shape: str) -> None:
    points, numbers = (int(part.strip(" []'")) for part in shape.split(","))
    keypoints = " ".join(f"0.{number % 9 + 1}" for number in range(points * numbers))
    text = f"train: images/train\nval: images/val\nkpt_shape: {shape}\nnames: [cat, dog]\n"
    one(tmp_path, f"0 0.5 0.5 0.25 0.5 {keypoints}\n1 0.5 0.5 1 1\n", text)
    dataset = load_dataset(tmp_path, "train")
    np.testing.assert_allclose(dataset.images[0].boxes, [*PIXELS, [0, 0, 64, 48]])
    assert dataset.problems == ()


def test_a_pose_row_of_another_length_is_refused(tmp_path: Path) -> None:
    text = "train: images/train\nval: images/val\nkpt_shape: [3, 2]\nnames: [cat, dog]\n"
    with pytest.raises(ToodError, match=r"has 9 numbers, not .* 'kpt_shape' is \[3, 2\], 11"):
        load_dataset(one(tmp_path, "0 0.5 0.5 0.25 0.5 0.1 0.1 0.2 0.2\n", text), "train")


@pytest.mark.parametrize("shape", ["3", "[3]", "[3, 4]", "[0, 2]", "[a, 2]", "{a: b}", "[3, 2, 1]"])
def test_a_kpt_shape_that_is_none_is_refused(tmp_path: Path, shape: str) -> None:
    text = f"train: images/train\nval: images/val\nkpt_shape: {shape}\nnames: [cat, dog]\n"
    with pytest.raises(ToodError, match="'kpt_shape' is"):
        load_dataset(one(tmp_path, BOX, text), "train")


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    points=st.integers(1, 6),
    numbers=st.sampled_from((2, 3)),
    box=st.tuples(*[st.floats(0.05, 0.95)] * 4),
    separator=st.sampled_from((" ", "\t", ",", ", ", "  ")),
    data=st.data(),
)
def test_any_pose_row_gives_its_first_four_numbers(
    tmp_path: Path, points: int, numbers: int, box: tuple[float, ...], separator: str, data: st.DataObject
) -> None:
    keypoints = data.draw(st.lists(st.floats(0, 1), min_size=points * numbers, max_size=points * numbers))
    path = tmp_path / "a.txt"
    path.write_text(separator.join(["1", *map(repr, box), *map(repr, keypoints)]))
    problems: list[Problem] = []
    table = read_labels(path, 1, 2, Keypoints(points, numbers), problems)
    assert problems == []
    assert table.rows.tolist() == [[1.0, *box]]


def test_each_folder_is_listed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(50):
        write_image(tmp_path / "images" / f"{number}.png")
    (tmp_path / "labels").mkdir()
    (tmp_path / "labels" / "7.txt").write_text(BOX)
    listed: list[str] = []
    listdir = os.listdir
    monkeypatch.setattr(os, "listdir", lambda folder=".": listed.append(str(folder)) or listdir(folder))
    finder = LabelFinder()
    found = [finder.find(tmp_path / "images" / f"{number}.png") for number in range(50)]
    assert [label for label in found if label] == [tmp_path / "labels" / "7.txt"]
    assert listed.count(str(tmp_path / "labels")) == 1
    assert len(listed) < 20
