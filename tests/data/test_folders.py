"""Files that are passed over are told, pictures alone are a dataset of a kind, and a refusal says what mends it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from dataset_files import (
    box_row,
    coco,
    image_row,
    usual_coco,
    voc_xml,
    write_coco_folder,
    write_image,
    write_voc_folder,
    write_yolo_folder,
)
from tood.cli.data import app
from tood.data import available_splits, check_dataset, convert_dataset, load_dataset, pick_splits, split_dataset
from tood.data.files import file_identity, find_images
from tood.errors import ToodError, quoted
from tood.training.datasets import describe

BOX = "0 0.5 0.5 0.25 0.5\n"
runner = CliRunner()


# --- passed over ------------------------------------------------------------------------------------------------------


def littered(root: Path) -> Path:
    """A YOLO folder with what systems, cameras and people leave in one."""
    write_yolo_folder(root, {"train/a": BOX, "val/b": BOX})
    pictures, labels = root / "images" / "train", root / "labels" / "train"
    for name in (".ipynb_checkpoints/a-checkpoint.png", "@eaDir/a.png", "__MACOSX/._a.png", "._a.png"):
        write_image(pictures / name)
    (pictures / "phone.HEIC").write_bytes(b"")
    (pictures / "gone.jpg").symlink_to(root / "nowhere.jpg")
    (labels / "phone.txt").write_text(BOX)
    (labels / "sub").mkdir()
    (labels / "sub" / "deep.txt").write_text(BOX)
    (labels / "classes.txt").write_text("cat\ndog\n")
    (labels / "README.txt").write_text("made by hand\n")
    return root


def test_files_that_are_passed_over_are_told_in_one_line(tmp_path: Path) -> None:
    dataset = load_dataset(littered(tmp_path), "train")
    assert [image.path.name for image in dataset.images] == ["a.png"]
    (line,) = dataset.notes
    assert line.startswith("8 files passed over: ")
    assert "\n" not in line
    assert line == (
        "8 files passed over: 2 label files without a picture (such as train/phone.txt); "
        "1 of kinds that are not read: save them as JPEG or PNG (such as train/phone.HEIC); "
        "1 links to nothing (such as train/gone.jpg); 3 in hidden or system folders (such as "
        ".ipynb_checkpoints/a-checkpoint.png); 1 hidden"
    ), "what can be mended first, and no example where the line would get too long"
    assert line in describe(dataset), "what `tood train` says"
    for command in ("check", "list"):
        result = runner.invoke(app, [command, str(tmp_path)])
        assert result.exit_code == 0, result.output
        assert [text for text in result.output.splitlines() if "passed over" in text and line in text]
    assert line in check_dataset(tmp_path, "train").to_dict()["notes"]
    assert load_dataset(tmp_path, "val").notes == ()


def test_labels_of_another_split_in_the_same_folder_are_no_orphans(tmp_path: Path) -> None:
    write_yolo_folder(tmp_path, {"a": BOX, "b": BOX}, "train: train.txt\nval: val.txt\nnames: [cat]\n")
    (tmp_path / "train.txt").write_text("images/a.png\n")
    (tmp_path / "val.txt").write_text("images/b.png\n")
    assert load_dataset(tmp_path, "train").notes == load_dataset(tmp_path, "val").notes == ()
    (tmp_path / "images" / "b.png").unlink()
    (tmp_path / "val.txt").write_text("images/a.png\n")
    (note,) = load_dataset(tmp_path, "train").notes
    assert "1 label files without a picture" in note


def test_coco_and_voc_tell_it_too(tmp_path: Path) -> None:
    write_coco_folder(tmp_path / "coco", usual_coco())
    write_image(tmp_path / "coco" / "train2017" / ".ipynb_checkpoints" / "7.png")
    write_image(tmp_path / "coco" / "train2017" / "unnamed.png")
    (note,) = load_dataset(tmp_path / "coco", "train").notes
    assert note.startswith("2 files passed over: ")
    assert "1 pictures that no annotation names (such as" in note
    xmls = {name: voc_xml(name, [("dog", (1, 1, 9, 9), 0)]) for name in "ab"}
    write_voc_folder(tmp_path / "voc", xmls, {"train": ["a"], "val": ["b"]})
    assert load_dataset(tmp_path / "voc", "train").notes == (), "the other picture is the other split's"
    (tmp_path / "voc" / "JPEGImages" / "c.cr2").write_bytes(b"")
    (note,) = load_dataset(tmp_path / "voc", "train").notes
    assert "1 of kinds that are not read: save them as JPEG or PNG (such as JPEGImages/c.cr2)" in note


def test_linked_folders_go_by_their_own_name(tmp_path: Path) -> None:
    """Labels lie beside the real folder: under the link's name they would not be found."""
    write_yolo_folder(tmp_path, {"train/real/a": BOX, "val/b": BOX})
    (tmp_path / "images" / "train" / "another").symlink_to(tmp_path / "images" / "train" / "real")
    dataset = load_dataset(tmp_path, "train")
    assert [image.name for image in dataset.images] == ["real/a.png"]
    assert dataset.box_count == 1


def test_a_linked_folder_from_elsewhere_is_read(tmp_path: Path) -> None:
    write_image(tmp_path / "disk" / "pictures" / "a.png")
    root = write_yolo_folder(tmp_path / "set", {"train/b": BOX, "val/c": BOX})
    (root / "images" / "train" / "more").symlink_to(tmp_path / "disk" / "pictures")
    (root / "labels" / "train" / "more").mkdir()
    (root / "labels" / "train" / "more" / "a.txt").write_text(BOX)
    assert load_dataset(root, "train").box_count == 2


@pytest.mark.skipif(sys.platform == "win32", reason="Windows knows no such permission")
def test_a_folder_that_cannot_be_read_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    closed = tmp_path / "closed"
    write_image(closed / "a.png")
    scandir = os.scandir

    def refusing(folder: Path) -> object:  # root may read everything
        if Path(folder) == closed:
            raise PermissionError
        return scandir(folder)

    monkeypatch.setattr(os, "scandir", refusing)
    assert find_images(tmp_path).passed_over == {"in a folder that cannot be read": (closed,)}


def test_identity_sees_through_links_and_spellings(tmp_path: Path) -> None:
    real = write_image(tmp_path / "a.png")
    (tmp_path / "link.png").symlink_to(real)
    (tmp_path / "hard.png").hardlink_to(real)
    same = {
        file_identity(path) for path in (real, tmp_path / "link.png", tmp_path / "hard.png", tmp_path / "." / "a.png")
    }
    assert len(same) == 1
    assert file_identity(tmp_path / "gone.png") == file_identity(tmp_path / "x" / ".." / "gone.png")
    assert file_identity(write_image(tmp_path / "b.png")) not in same


# --- pictures alone ---------------------------------------------------------------------------------------------------


def test_pictures_without_labels_are_looked_at_and_not_learned_from(tmp_path: Path) -> None:
    write_image(tmp_path / "one" / "a.jpg", 80, 60)
    write_image(tmp_path / "b.png", 64, 48)
    (tmp_path / "notes.txt").write_text("taken in May\n")
    assert {name: info.annotated for name, info in available_splits(tmp_path).items()} == {"all": False}
    dataset = load_dataset(tmp_path)
    assert (dataset.format, dataset.annotated, dataset.categories) == ("pictures", False, ())
    assert [(image.name, image.width) for image in dataset.images] == [("b.png", 64), ("one/a.jpg", 80)]
    report = check_dataset(tmp_path)
    assert report.ok
    assert (report.images, report.boxes) == (2, 0)
    for command in ("check", "list", "stats"):
        result = runner.invoke(app, [command, str(tmp_path)])
        assert result.exit_code == 0, result.output
    with pytest.raises(ToodError, match="holds pictures, but no labels: there is nothing to learn from"):
        pick_splits(tmp_path)
    with pytest.raises(ToodError, match="no annotations"):
        convert_dataset(tmp_path, tmp_path.parent / f"{tmp_path.name}-out", "coco")
    with pytest.raises(ToodError, match="no annotations"):
        split_dataset(tmp_path, tmp_path.parent / f"{tmp_path.name}-out")
    (tmp_path / "b.png").write_bytes(b"broken")
    assert not check_dataset(tmp_path).ok


@pytest.mark.parametrize("name", ["a.txt", "a.xml", "a.json", "labels/a.txt", "table.csv"])
def test_pictures_with_something_said_about_them_are_not_taken_as_bare(tmp_path: Path, name: str) -> None:
    write_image(tmp_path / "a.png")
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text(BOX if name.endswith(".txt") else "-")
    with pytest.raises(ToodError):
        available_splits(tmp_path)


# --- refusals ---------------------------------------------------------------------------------------------------------


def refused(root: Path) -> str:
    with pytest.raises(ToodError) as caught:
        available_splits(root)
    text = str(caught.value)
    assert "\n" not in text
    return text


def mend(text: str) -> None:
    """Runs the commands that a refusal names."""
    for command in re.findall(r"`([^`]+)`", text.split("for Pascal VOC")[1].split("; ", 1)[1]):
        subprocess.run(command, shell=True, check=True)


@pytest.mark.parametrize(
    ("picture", "label"),
    [
        ("images/a.png", "labels/a.txt"),
        ("a.png", "a.txt"),
        ("images/a.png", "annotations/a.txt"),
        ("my pictures/a.png", "yolo txt/a.txt"),
        ("train/images/a.png", "train/labels/a.txt"),
    ],
)
def test_labels_without_names_are_told_what_their_yaml_would_be(tmp_path: Path, picture: str, label: str) -> None:
    root = tmp_path / "my set"
    write_image(root / picture)
    (root / label).parent.mkdir(parents=True, exist_ok=True)
    (root / label).write_text(f"{BOX}2 0.5 0.5 1 1\n")
    text = refused(root)
    assert "it holds 1 picture, 1 .txt file" in text
    assert "for YOLO there is no data.yaml" in text
    assert "for COCO there is no json" in text
    assert "for Pascal VOC there is no xml" in text
    assert "name the 3 classes" in text
    mend(text)
    dataset = load_dataset(root, "train")
    assert dataset.class_names == ("class0", "class1", "class2")
    assert dataset.images[0].boxes.tolist() == [[24, 12, 40, 36], [0, 0, 64, 48]]


def test_labels_in_a_folder_of_another_name_are_told_where_to_go(tmp_path: Path) -> None:
    write_image(tmp_path / "img" / "a.png")
    (tmp_path / "lab").mkdir()
    (tmp_path / "lab" / "a.txt").write_text(BOX)
    (tmp_path / "classes.txt").write_text("cat\n")
    text = refused(tmp_path)
    assert "classes.txt names the classes, but no label txt is beside a picture" in text
    assert "class0" not in text
    mend(text)
    assert (load_dataset(tmp_path).class_names, load_dataset(tmp_path).box_count) == (("cat",), 1)


def test_a_coco_json_of_an_odd_name_in_the_root_is_read(tmp_path: Path) -> None:
    content = coco([image_row(1)], [box_row(1, 1)], {3: "cat"})
    json_file = write_coco_folder(tmp_path, content).rename(tmp_path / "odd.json")
    (tmp_path / "annotations").rmdir()
    (tmp_path / "train2017").rename(tmp_path / "images")
    assert len(load_dataset(tmp_path)) == len(load_dataset(json_file)) == 1


def test_a_dataset_further_down_is_named(tmp_path: Path) -> None:
    inner = tmp_path / "download" / "v1"
    write_coco_folder(inner, usual_coco())
    text = refused(tmp_path)
    assert f"{inner} is a COCO dataset: name that folder" in text
    assert len(load_dataset(inner)) == 3


def test_other_things_are_told_by_what_they_are(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert "there is no file in it" in refused(tmp_path / "empty")
    (tmp_path / "zip").mkdir()
    archive = tmp_path / "zip" / "data.zip"
    archive.write_bytes(b"PK")
    command = f"unzip {quoted(archive)} -d {quoted(archive.parent)}"
    assert f"unpack the archive: `{command}`" in refused(tmp_path / "zip")
    assert f"it is an archive: unpack it (`{command}`)" in refused(archive)
    assert "it is a picture, which `tood predict` takes" in refused(write_image(tmp_path / "a.png"))
    assert f"is {tmp_path / 'empty'} meant?" in refused(tmp_path / "emty")
    table = tmp_path / "table" / "boxes.csv"
    write_image(table.parent / "pics" / "a.png")
    table.write_text("file,x,y\n")
    assert "boxes.csv is in no format that is read: export the dataset as COCO, YOLO or Pascal VOC" in refused(
        table.parent
    )
    (tmp_path / "labels").mkdir()
    (tmp_path / "labels" / "a.txt").write_text(BOX)
    assert "there are 1 label files, but no pictures" in refused(tmp_path / "labels")


PIECES = ["images", "Images", "labels", "train", "valid", "test", "data", "obj_train_data", "Annotations", "inner"]
FILES = ["a.png", "a.txt", "b.jpg", "data.yaml", "mine.yml", "classes.txt", "obj.names", "obj.data", "train.txt"]
FILES += [
    "train.json",
    "_annotations.coco.json",
    "a.xml",
    "notes.json",
    "_darknet.labels",
    "x.heic",
    "images",
    "labels.txt",
]
CONTENTS = ["", "\n", BOX, "cat\ndog\n", "train: images\nnames: [cat]\n", "train: .\nval: [a, b]\nnames: {0: cat}\n"]
CONTENTS += [
    "train = data/train.txt\nnames = obj.names\n",
    "images/a.png\n",
    "C:\\x\\images\\a.png\n",
    "{}",
    "[",
    "\ufeff",
]


@settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    tree=st.lists(
        st.tuples(st.lists(st.sampled_from(PIECES), max_size=3), st.sampled_from(FILES), st.sampled_from(CONTENTS)),
        max_size=8,
    )
)
def test_any_tree_is_a_dataset_or_one_sentence(tree: list[tuple[list[str], str, str]]) -> None:
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        for folders, file, content in tree:
            path = root.joinpath(*folders, file)
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                if path.suffix in (".png", ".jpg"):
                    write_image(path, 8, 8)
                else:
                    path.write_text(content)
            except (FileExistsError, NotADirectoryError, IsADirectoryError):
                continue
        told = ""
        try:
            for split in available_splits(root):
                check_dataset(root, split, workers=1)
        except ToodError as error:
            told = str(error)
        assert "\n" not in told
