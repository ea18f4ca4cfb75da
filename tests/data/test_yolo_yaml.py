"""What a yaml names: classes as text, and places that are found wherever the folder has gone."""

from __future__ import annotations

import codecs
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from dataset_files import voc_xml, write_image, write_voc_folder, write_yolo_folder
from tood.cli.data import app
from tood.data import available_splits, check_dataset, convert_dataset, load_dataset, pick_splits
from tood.errors import ToodError

BOX = "0 0.5 0.5 0.25 0.5\n"
GOOD = {"train/a": BOX, "val/b": BOX}
runner = CliRunner()

TRICKY = [
    "no",
    "off",
    "y",
    "True",
    "null",
    "~",
    "012",
    "0x1F",
    "1e3",
    "1_000",
    "12:30:00",
    "2024-01-01",
    ".inf",
    "3.10",
]


# --- names ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("style", ["flow", "block", "numbered", "quoted numbers"])
def test_names_are_text_as_written(tmp_path: Path, style: str) -> None:
    names = {
        "flow": f"names: [{', '.join(TRICKY)}]\n",
        "block": "names:\n" + "".join(f"- {name}\n" for name in TRICKY),
        "numbered": "names:\n" + "".join(f"  {number}: {name}\n" for number, name in enumerate(TRICKY)),
        "quoted numbers": "names:\n" + "".join(f"  '{number}': {name}\n" for number, name in enumerate(TRICKY)),
    }[style]
    write_yolo_folder(tmp_path, GOOD, f"train: images/train\nval: images/val\nnc: {len(TRICKY)}\n{names}")
    assert load_dataset(tmp_path, "train").class_names == tuple(TRICKY)
    convert_dataset(tmp_path, tmp_path.parent / f"{tmp_path.name}-again", "yolo")
    assert load_dataset(tmp_path.parent / f"{tmp_path.name}-again", "train").class_names == tuple(TRICKY)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.text(st.characters(blacklist_categories=["Cs", "Cc"]), min_size=1), min_size=1, max_size=5))
def test_any_names_that_yaml_writes_are_read_again(tmp_path: Path, names: list[str]) -> None:
    if not (tmp_path / "data.yaml").exists():
        write_yolo_folder(tmp_path, GOOD)
    text = yaml.safe_dump({"train": "images/train", "names": names}, allow_unicode=True)
    (tmp_path / "data.yaml").write_text(text, encoding="utf-8")
    assert load_dataset(tmp_path, "train").class_names == tuple(names)


@pytest.mark.parametrize(
    ("names", "sentence"),
    [
        ("names: [cat, '']", "'names' is to be the list"),
        ("names: [cat, [dog]]", "'names' is to be the list"),
        ("names: {a: cat}", "keys of 'names'"),
        ("names: {0: cat, 2: dog}", "keys of 'names'"),
        ("names: [cat]\nnc: two", "'nc' is two, but 'names' has 1"),
        ("names: {0: cat, 0: dog}", "broken yaml: key '0' is there twice"),
        ("names: [cat]\ntrain: images/val", "broken yaml: key 'train' is there twice"),
        ("names: no_such_file.txt", "'names' is to be the list"),
    ],
)
def test_names_that_are_none_are_refused(tmp_path: Path, names: str, sentence: str) -> None:
    write_yolo_folder(tmp_path, GOOD, f"train: images/train\nval: images/val\n{names}\n")
    with pytest.raises(ToodError, match=sentence):
        load_dataset(tmp_path, "train")


def test_names_may_stand_in_a_file_of_their_own(tmp_path: Path) -> None:
    write_yolo_folder(tmp_path, GOOD, "train: images/train\nval: images/val\nnames: data/obj.names\n")
    (tmp_path / "obj.names").write_bytes(codecs.BOM_UTF8 + b"cat\r\nno\r\n\r\n")
    assert load_dataset(tmp_path, "train").class_names == ("cat", "no")
    (tmp_path / "obj.names").write_text("cat\n\ndog\n")
    with pytest.raises(ToodError, match="line 2 is empty, but stands for class 1"):
        load_dataset(tmp_path, "train")


def test_a_backslash_in_double_quotes_is_explained(tmp_path: Path) -> None:
    write_yolo_folder(tmp_path, GOOD, 'train: "C:\\data\\images\\train"\nnames: [cat]\n')
    with pytest.raises(ToodError, match=r"broken yaml: .*between double quotes write /"):
        load_dataset(tmp_path, "train")


# --- places -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        "path: /home/somebody/else/data\ntrain: images/train\nval: images/val\n",
        "path: C:\\Users\\me\\data\ntrain: images\\train\nval: .\\images\\val\n",
        "train: /home/somebody/else/data/images/train\nval: /home/somebody/else/data/images/val\n",
        "train: D:\\sets\\mine\\images\\train\nval: D:\\sets\\mine\\images\\val\n",
        "train: ../images/train\nval: ../images/val\n",
        "train: ../mine/images/train\nval: ../mine/images/val\n",
        "train: ./images/train/\nval: ./images/val/\n",
        "train: Images/Train\nval: IMAGES/val\n",
        "train: 'images/train '\nval: [images/val]\n",
        "path: ~\ntrain: images/train\nval: images/val\ntest: ~\n",
        "path:\ntrain: images/train\nval: images/val\ntest: null\n",
    ],
)
def test_places_are_found_on_another_machine(tmp_path: Path, text: str) -> None:
    write_yolo_folder(tmp_path, GOOD, f"{text}names: [cat]\n")
    assert list(available_splits(tmp_path)) == ["train", "val"]
    for split, name in (("train", "a.png"), ("val", "b.png")):
        dataset = load_dataset(tmp_path, split)
        assert [image.path for image in dataset.images] == [tmp_path / "images" / split / name]
        assert dataset.box_count == 1


@pytest.mark.parametrize("mark", [b"", codecs.BOM_UTF8, codecs.BOM_UTF16_LE])
@pytest.mark.parametrize(
    "line",
    [
        "images/train/a.png",
        "./images/train/a.png",
        "images\\train\\a.png",
        ".\\images\\train\\a.png",
        "C:\\Users\\me\\sets\\images\\train\\a.png",
        "/content/sets/images/train/a.png",
        "data/images/train/a.png",
        "../images/train/a.png",
        '"images/train/a.png"',
        "Images/Train/A.PNG",
    ],
)
def test_lists_are_found_on_another_machine(tmp_path: Path, line: str, mark: bytes) -> None:
    write_yolo_folder(tmp_path, GOOD, "train: lists/train.txt\nval: images/val\nnames: [cat]\n")
    (tmp_path / "lists").mkdir()
    encoding = "utf-16-le" if mark == codecs.BOM_UTF16_LE else "utf-8"
    (tmp_path / "lists" / "train.txt").write_bytes(mark + f"{line}\r\n\r\n".encode(encoding))
    dataset = load_dataset(tmp_path, "train")
    assert [image.path.resolve() for image in dataset.images] == [tmp_path / "images" / "train" / "a.png"]
    assert dataset.box_count == 1


def test_two_absolute_folders_of_one_end_are_not_one(tmp_path: Path) -> None:
    write_image(tmp_path / "images" / "a.png")
    (tmp_path / "labels").mkdir()
    (tmp_path / "labels" / "a.txt").write_text(BOX)
    text = "train: /home/me/train/images\nval: /home/me/valid/images\nnames: [cat]\n"
    (tmp_path / "data.yaml").write_text(text)
    assert list(available_splits(tmp_path)) == ["train"], "what is there cannot be both"


def test_two_listed_files_of_one_end_are_not_one(tmp_path: Path) -> None:
    write_yolo_folder(tmp_path, GOOD, "train: train.txt\nval: images/val\nnames: [cat]\n")
    shutil.copy(tmp_path / "images" / "train" / "a.png", tmp_path / "a.png")
    (tmp_path / "train.txt").write_text("/old/one/a.png\n/old/one/gone.png\n")
    with pytest.raises(ToodError, match=r"gone\.png: no such image file"):
        load_dataset(tmp_path, "train")


def test_roboflows_folder_is_the_one_beside_its_yaml(tmp_path: Path) -> None:
    for root, seed in ((tmp_path, 1), (tmp_path / "mine", 2)):
        write_image(root / "train" / "images" / "a.png", seed=seed)
        (root / "train" / "labels").mkdir()
        (root / "train" / "labels" / "a.txt").write_text(BOX)
    text = "train: ../train/images\nnames: [cat]\nroboflow:\n  version: 1\n"
    (tmp_path / "mine" / "data.yaml").write_text(text)
    assert load_dataset(tmp_path / "mine", "train").images[0].path.is_relative_to(tmp_path / "mine")


# --- missing splits ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["not there", "empty folder", "empty list"])
def test_a_split_without_pictures_is_left_out_and_told_unless_asked_for(tmp_path: Path, how: str) -> None:
    place = "test.txt" if how == "empty list" else "images/test"
    text = f"train: images/train\nval: images/val\ntest: {place}\nnames: [cat]\n"
    write_yolo_folder(tmp_path, GOOD, text)
    if how == "empty folder":
        (tmp_path / "images" / "test").mkdir()
    elif how == "empty list":
        (tmp_path / "test.txt").write_text("\n")
    assert list(available_splits(tmp_path)) == ["train", "val"]
    assert pick_splits(tmp_path).evaluation == "val"
    for command in ("check", "list"):
        result = runner.invoke(app, [command, str(tmp_path)])
        assert result.exit_code == 0, result.output
        assert result.output.count(f"'test' names '{place}'") == 1
    with pytest.raises(ToodError, match=f"'test' names '{place}'"):
        load_dataset(tmp_path, "test")
    with pytest.raises(ToodError, match=f"'test' names '{place}'"):
        pick_splits(tmp_path, test="test")


def test_what_is_left_is_not_trained_on_instead(tmp_path: Path) -> None:
    write_yolo_folder(tmp_path, GOOD, "train: images/nowhere\nval: images/val\nnames: [cat]\n")
    with pytest.raises(ToodError, match="'train' names 'images/nowhere'"):
        pick_splits(tmp_path)
    with pytest.raises(ToodError, match="'train' names 'images/nowhere'"):
        load_dataset(tmp_path)
    assert load_dataset(tmp_path, "val").box_count == 1


# --- which yaml -------------------------------------------------------------------------------------------------------


def test_a_yaml_of_any_name_in_the_folder_or_below(tmp_path: Path) -> None:
    write_yolo_folder(tmp_path / "inner", GOOD)
    (tmp_path / "inner" / "data.yaml").rename(tmp_path / "inner" / "my pictures.YAML")
    (tmp_path / "hyp.yaml").write_text("lr0: 0.01\n")
    assert load_dataset(tmp_path, "train").box_count == 1
    write_yolo_folder(tmp_path / "other", GOOD)
    with pytest.raises(ToodError, match=r"holds several YOLO datasets \(inner/my pictures\.YAML, other/data\.yaml\)"):
        load_dataset(tmp_path, "train")
    assert load_dataset(tmp_path / "other", "train").box_count == 1


def test_labels_without_their_pictures_are_explained(tmp_path: Path) -> None:
    """CVAT exports labels alone, unless asked for pictures."""
    write_yolo_folder(tmp_path, GOOD, "path: .\ntrain: train.txt\nnames: [cat]\n")
    (tmp_path / "train.txt").write_text("images/train/a.png\n")
    shutil.rmtree(tmp_path / "images")
    with pytest.raises(ToodError, match="none of the 1 pictures of split 'train' is there, though their labels are"):
        load_dataset(tmp_path, "train")
    assert not check_dataset(tmp_path, "train").ok


# --- without a yaml ---------------------------------------------------------------------------------------------------


def test_classes_txt_stands_for_a_yaml_and_is_told(tmp_path: Path) -> None:
    for split in ("train", "valid"):
        write_image(tmp_path / "images" / split / "a.png")
        (tmp_path / "labels" / split).mkdir(parents=True)
        (tmp_path / "labels" / split / "a.txt").write_text(BOX)
    (tmp_path / "classes.txt").write_text("cat\ndog\n")
    assert list(available_splits(tmp_path)) == ["train", "val"]
    dataset = load_dataset(tmp_path, "train")
    assert dataset.class_names == ("cat", "dog")
    np.testing.assert_allclose(dataset.images[0].boxes, [[24, 12, 40, 36]])
    result = runner.invoke(app, ["check", str(tmp_path)])
    assert "there is no data.yaml: the 2 classes (cat, dog) are those of" in result.output


def test_two_files_of_names_that_differ_are_refused(tmp_path: Path) -> None:
    write_image(tmp_path / "images" / "a.png")
    (tmp_path / "labels").mkdir()
    (tmp_path / "labels" / "a.txt").write_text(BOX)
    (tmp_path / "classes.txt").write_text("cat\ndog\n")
    (tmp_path / "labels" / "classes.txt").write_text("cat\ndog\n")
    assert load_dataset(tmp_path).box_count == 1
    (tmp_path / "labels" / "classes.txt").write_text("dog\ncat\n")
    with pytest.raises(ToodError, match="name other classes: remove the one that is not meant"):
        load_dataset(tmp_path)


# --- mended lines -----------------------------------------------------------------------------------------------------


def refused(root: Path) -> str:
    with pytest.raises(ToodError) as caught:
        available_splits(root)
    text = str(caught.value)
    assert "\n" not in text
    return text


@pytest.mark.parametrize(
    ("line", "wanted"),
    [
        ("names: cat, dog", ("cat", "dog")),
        ("names: cat", ("cat",)),
        ("names: {1: cat, 2: dog}", ("cat", "dog")),
        ("names: {'1': no, '2': 'a: b'}", ("no", "a: b")),
        ("names:\t[cat, dog]", ("cat", "dog")),
    ],
)
def test_the_line_that_a_refusal_writes_mends_the_yaml(tmp_path: Path, line: str, wanted: tuple[str, ...]) -> None:
    start = "train: images/train\nval: images/val\n"
    write_yolo_folder(tmp_path, GOOD, f"{start}{line}\n")
    lines = re.findall("`([^`]+)`", refused(tmp_path))
    (tmp_path / "data.yaml").write_text(f"{start}{lines[0]}\n")
    assert load_dataset(tmp_path, "train").class_names == wanted
    if "1" in line:
        (tmp_path / "data.yaml").write_text(f"{start}{lines[1]}\n")
        assert load_dataset(tmp_path, "train").class_names == ("unused", *wanted)


def test_a_second_document_is_named_by_its_line(tmp_path: Path) -> None:
    start = "train: images/train\nval: images/val\nnames: [cat]\n"
    write_yolo_folder(tmp_path, GOOD, f"{start}---\nx: 1\n")
    assert "line 4 starts a second document: remove it ('---') and what follows" in refused(tmp_path)


def test_a_yaml_that_is_not_utf8_is_mended_by_the_command_that_is_told(tmp_path: Path) -> None:
    root = tmp_path / "my set"
    write_yolo_folder(root, GOOD)
    text = "train: images/train\nval: images/val\nnames: [猫, 狗]\n"
    (root / "data.yaml").write_bytes(text.encode("gbk"))
    (command,) = re.findall("`([^`]+)`", refused(root))
    subprocess.run(command, shell=True, check=True)
    assert load_dataset(root, "train").class_names == ("猫", "狗")


@pytest.mark.parametrize("name", ["classes.txt", "train.txt", "ImageSets/Main/train.txt"])
def test_so_are_names_and_lists(tmp_path: Path, name: str) -> None:
    if name.startswith("ImageSets"):
        write_voc_folder(tmp_path, {"a": voc_xml("a", [("cat", (1, 1, 9, 9), 0)])}, {})
    else:
        write_yolo_folder(tmp_path, {"a": BOX}, "train: train.txt\nnames: [cat]\n")
    text = {"classes.txt": "老虎\n", "train.txt": "# 老虎\nimages/a.png\n"}.get(name, "a\n老虎\n")
    if name == "classes.txt":
        (tmp_path / "data.yaml").unlink()
    (tmp_path / name).write_bytes(text.encode("gbk"))
    (command,) = re.findall("`([^`]+)`", refused(tmp_path))
    subprocess.run(command, shell=True, check=True)
    assert (tmp_path / name).read_text(encoding="utf-8") == text
    assert available_splits(tmp_path)


# --- lists ------------------------------------------------------------------------------------------------------------


def test_comments_in_lists_are_none_and_numbers_behind_names_are_told(tmp_path: Path) -> None:
    names = {"train/a": BOX, "train/#b": BOX, "train/c": BOX, "val/d": BOX}
    write_yolo_folder(tmp_path, names, "train: train.txt\nval: images/val\nnames: [cat]\n")
    pictures = ["images/train/a.png 1", "images/train/c.png -1", f"{tmp_path}/images/train/#b.png"]
    (tmp_path / "train.txt").write_text("\n".join(["# list", "#images/train/d.png", *pictures]))
    dataset = load_dataset(tmp_path, "train")
    assert [image.path.name for image in dataset.images] == ["#b.png", "a.png", "c.png"]
    assert dataset.box_count == 3
    assert dataset.notes == ("2 lines of lists end in a number ('images/train/a.png 1'), which is left out",)


def test_lists_with_boxes_are_named(tmp_path: Path) -> None:
    write_yolo_folder(tmp_path, GOOD, "train: train.txt\nval: images/val\nnames: [cat]\n")
    (tmp_path / "train.txt").write_text("images/train/a.png 1,2,20,30,0 4,5,6,7,1\n")
    assert "is a list of Keras-YOLO with the boxes in it" in refused(tmp_path)
