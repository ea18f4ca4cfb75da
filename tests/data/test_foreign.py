"""Labels of other tools are never called absent: they are named, with how to come to a format that is read."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from dataset_files import box_row, coco, image_row, usual_coco, voc_xml, write_coco_folder, write_image
from tood.data import available_splits, check_dataset, load_dataset
from tood.errors import ToodError, quoted

BOX = "0 0.5 0.5 0.25 0.5\n"
VOC = voc_xml("a", [("cat", (5, 5, 20, 20), 0)])
JSONS: dict[str, tuple[str, Any]] = {
    "LabelMe": ("a.json", {"version": "5.0", "shapes": [], "imagePath": "a.jpg", "imageData": None}),
    "VIA": ("via_project.json", {"_via_settings": {}, "_via_img_metadata": {}}),
    "VIA)": ("via_region_data.json", {"a.jpg12": {"filename": "a.jpg", "size": 12, "regions": []}}),
    "VoTT": ("p-export.json", {"name": "p", "tags": [], "assets": {}}),
    "VoTT's": ("x-asset.json", {"asset": {"name": "a.jpg"}, "regions": [], "version": "2"}),
    "Supervisely": ("ds/ann/a.jpg.json", {"tags": [], "size": {"height": 1, "width": 1}, "objects": []}),
    "Label Studio": ("project.json", [{"id": 1, "annotations": [], "data": {"image": "/a.jpg"}}]),
    "Label Studio's": ("project-min.json", [{"id": 1, "image": "/a.jpg", "label": []}]),
    "CreateML": ("train/_annotations.createml.json", [{"image": "a.jpg", "annotations": []}]),
    "FiftyOne": ("samples.json", {"samples": []}),
    "Datumaro": ("set.json", {"info": {}, "categories": {"label": {}}, "items": []}),
    "BDD100K": ("det_train.json", [{"name": "a.jpg", "labels": []}]),
}
TEXTS = {
    "KITTI": ("label_2/a.txt", "Car 0.0 0 -10 1 2 30 40 -1 -1 -1 -1000 -1000 -1000 -10\n"),
    "OIDv4": ("Label/a.txt", "Traffic light 12.5 3 40 50.25\n"),
    "WIDER FACE": ("split/wider_face_train_bbx_gt.txt", "0--x/a.jpg\n1\n1 2 3 4 0 0 0 0 0 0\n"),
    "Keras-YOLO": ("train/_annotations.txt", "a.jpg 1,2,3,4,0 5,6,7,8,1\n"),
    "VisDrone": ("annotations/a.txt", "5,6,20,30,1,4,0,0\n1,2,3,4,0,0,0,0\n"),
    "MOT": ("gt/gt.txt", "1,1,10,20,30,40,1,1,1.0\n"),
    "DOTA": ("labelTxt/a.txt", "imagesource:x\ngsd:1\n1 2 3 4 5 6 7 8 plane 0\n"),
    "names of classes where YOLO": ("labels/a.txt", "cat 0.5 0.5 0.25 0.5\n"),
    "numbers in no format": ("boxes/a.txt", "10 20 30 40\n"),
}
TABLES = {
    "table of boxes": ("_annotations.csv", "filename,width,height,class,xmin,ymin,xmax,ymax\n"),
    "RetinaNet": ("annotations.csv", "images/a.jpg,1,2,30,40,cat\n"),
    "Open Images": ("bbox.csv", "ImageID,Source,LabelName,Confidence,XMin,XMax,YMin,YMax\n"),
    "VGG Image": ("via.csv", "filename,file_size,region_count,region_shape_attributes\n"),
    "CVAT": ("annotations.xml", '<?xml version="1.0"?>\n<annotations><version>1.1</version></annotations>'),
}


def write(root: Path, name: str, content: Any) -> Path:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def refused(root: Path) -> str:
    with pytest.raises(ToodError) as caught:
        available_splits(root)
    text = str(caught.value)
    assert "\n" not in text
    return text


@pytest.mark.parametrize(
    ("tool", "name", "content"),
    [(tool.strip(")"), *file) for tool, file in {**JSONS, **TEXTS, **TABLES}.items()],
)
def test_the_tool_is_named_and_nothing_else_is_said(tmp_path: Path, tool: str, name: str, content: Any) -> None:
    for folder in ("train", "images"):
        write_image(tmp_path / folder / "a.jpg")
    path = write(tmp_path, name, content)
    text = refused(tmp_path)
    assert f"{path} is " in text
    assert tool in text.partition(" which is not read: ")[0].removeprefix(str(tmp_path))
    assert text.partition(" which is not read: ")[2]
    assert "`" not in text, "no command that cannot be pasted"
    assert "for COCO there is" not in text


@pytest.mark.parametrize(("name", "content"), [*JSONS.values()])
def test_a_json_that_is_named_itself_is_told_by_its_tool(tmp_path: Path, name: str, content: Any) -> None:
    path = write(tmp_path, name, content)
    with pytest.raises(ToodError, match=r"which is not read: .*no COCO dataset"):
        load_dataset(path)


def test_cvats_xml_named_itself_is_told(tmp_path: Path) -> None:
    path = write(tmp_path, *TABLES["CVAT"])
    assert "CVAT's own xml" in refused(path)


@pytest.mark.parametrize("folder", ["SegmentationClass", "masks", "annotations/trimaps", "labels"])
def test_masks_are_no_pictures_to_learn_from(tmp_path: Path, folder: str) -> None:
    for name in "ab":
        write_image(tmp_path / "images" / f"{name}.jpg")
        write_image(tmp_path / folder / f"{name}.png")
    assert f"{tmp_path / folder} holds 2 masks of the other pictures" in refused(tmp_path)
    (tmp_path / folder).rename(tmp_path / "others")
    assert list(available_splits(tmp_path)) == ["all"]


@pytest.mark.parametrize("text", ["taken in May\n", "12 pictures of 3 cats\n", "call 555 1234\n", "v1.0 2024\n"])
def test_what_somebody_wrote_about_the_pictures_is_no_label(tmp_path: Path, text: str) -> None:
    write_image(tmp_path / "a.png")
    write(tmp_path, "notes.txt", text)
    assert list(available_splits(tmp_path)) == ["all"]


# --- remedies ---------------------------------------------------------------------------------------------------------


def split_folders(root: Path) -> None:
    for split in ("train", "val"):
        for name in (split, "same"):
            write_image(root / split / "img" / f"{name}.jpg")
            write(root, f"{split}/lab/{name}.txt", BOX if split == "train" else BOX * 2)
    write(root, "classes.txt", "cat\n")


def split_folders_without_names(root: Path) -> None:
    split_folders(root)
    (root / "classes.txt").unlink()


def images_and_annotations(root: Path) -> None:
    write_image(root / "images" / "a.jpg")
    write(root, "annotations/a.txt", BOX)


def several_pairs(root: Path) -> None:
    for part in ("one", "two", "three"):
        write_image(root / part / "images" / f"{part}.jpg")
        write(root, f"{part}/txt files/{part}.txt", BOX)
    write(root, "classes.txt", "cat\n")


def stanford_dogs(root: Path) -> None:
    for breed in ("n01-Chihuahua", "n02-Pug"):
        write_image(root / "Images" / breed / f"{breed}_1.jpg")
        write(root, f"Annotation/{breed}/{breed}_1", VOC)


def deep_xml(root: Path) -> None:
    write_image(root / "pics" / "a.jpg")
    write(root, "x/y/z/w/v/u/t/a.xml", VOC)


def two_devkits(root: Path) -> None:
    for year in ("VOC2007", "VOC2012"):
        write_image(root / year / "JPEGImages" / "a.jpg")
        write(root, f"{year}/Annotations/a.xml", VOC)


@pytest.mark.parametrize(
    ("folder", "boxes"),
    [
        (split_folders, {"train": 2, "val": 4}),
        (split_folders_without_names, {"train": 2, "val": 4}),
        (images_and_annotations, {"train": 1}),
        (several_pairs, {"all": 3}),
        (stanford_dogs, {"all": 2}),
        (deep_xml, {"all": 1}),
    ],
)
def test_what_a_refusal_prints_mends_the_whole_folder(tmp_path: Path, folder: Any, boxes: dict[str, int]) -> None:
    root = tmp_path / "my set's"
    folder(root)
    commands = [text for text in re.findall(r"`([^`]+)`", refused(root)) if not text.startswith("class ")]
    assert commands
    for command in commands:
        subprocess.run(command, shell=True, check=True)
    assert {split: load_dataset(root, split).box_count for split in available_splits(root)} == boxes
    for split in boxes:
        assert check_dataset(root, split).ok


@pytest.mark.parametrize("name", ["export.tar", "export.tar.gz", "export.tgz", "export.zip"])
def test_an_archive_is_unpacked_where_it_lies(tmp_path: Path, name: str) -> None:
    write_coco_folder(tmp_path / "source", usual_coco())
    root = tmp_path / "down loads"
    root.mkdir()
    kind = {"zip": "zip", "tar": "tar"}.get(name.rpartition(".")[2], "gztar")
    shutil.make_archive(str(tmp_path / "packed"), kind, tmp_path / "source")
    next(tmp_path.glob("packed.*")).rename(root / name)
    for place in (root, root / name):
        (command,) = re.findall(r"`((?:tar|unzip) [^`]+)`", refused(place))
        subprocess.run(command, shell=True, check=True, cwd=tmp_path)
        assert len(load_dataset(root)) == 3
        shutil.rmtree(root / "annotations")
        shutil.rmtree(root / "train2017")


def test_a_json_far_down_is_named(tmp_path: Path) -> None:
    content = coco([image_row(1)], [box_row(1, 1)], {3: "cat"})
    path = write(tmp_path, "a/b/c/d/e/f/my boxes.json", content)
    write_image(path.parent / "1.png")
    (command,) = re.findall(r"`(tood [^`]+)`", refused(tmp_path))
    assert shlex.split(command) == ["tood", "data", "check", str(path)]
    assert len(load_dataset(path)) == 1


def test_of_two_devkits_the_command_names_one(tmp_path: Path) -> None:
    two_devkits(tmp_path)
    text = refused(tmp_path)
    assert "holds several VOC datasets (VOC2007, VOC2012): name one of them" in text
    assert f"`tood data check {quoted(tmp_path / 'VOC2007')}`" in text
    assert load_dataset(tmp_path / "VOC2007").box_count == 1


def test_no_json_without_boxes_is_recommended(tmp_path: Path) -> None:
    write_image(tmp_path / "a.jpg")
    captions = {"images": [], "categories": [], "annotations": [{"id": 1, "image_id": 1, "caption": "a cat"}]}
    write(tmp_path, "captions.json", captions)
    assert "name the json itself" not in refused(tmp_path)


def test_no_move_is_recommended_for_xml_of_another_kind(tmp_path: Path) -> None:
    write_image(tmp_path / "a.jpg")
    write(tmp_path, "settings.xml", "<settings/>")
    assert "mv " not in refused(tmp_path)


# --- several formats in one folder ------------------------------------------------------------------------------------


def test_voc_beside_yolo_is_told_with_how_to_choose(tmp_path: Path) -> None:
    write_image(tmp_path / "images" / "a.jpg")
    write(tmp_path, "Annotations/a.xml", VOC)
    write(tmp_path, "labels/a.txt", BOX * 2)
    write(tmp_path, "data.yaml", "train: images\nnames: [cat]\n")
    dataset = load_dataset(tmp_path)
    assert (dataset.format, dataset.box_count) == ("voc", 1)
    (note,) = dataset.notes
    yaml = tmp_path / "data.yaml"
    assert note == f"the folder holds YOLO (data.yaml), too: taken is Pascal VOC; to take YOLO, name {quoted(yaml)}"
    assert load_dataset(yaml, "train").box_count == 2
    assert load_dataset(yaml, "train").notes == ()


def test_coco_beside_labels_is_told_with_how_to_choose(tmp_path: Path) -> None:
    content = coco([image_row(1, "a.jpg")], [box_row(1, 1)], {3: "cat"})
    write_image(tmp_path / "images" / "a.jpg")
    write(tmp_path, "annotations/instances.json", content)
    write(tmp_path, "labels/a.txt", BOX * 2)
    write(tmp_path, "classes.txt", "cat\n")
    dataset = load_dataset(tmp_path)
    assert (dataset.format, dataset.box_count) == ("coco", 1)
    (note,) = dataset.notes
    assert note.startswith(
        "the folder holds YOLO (classes.txt), too: taken is COCO; to take YOLO, hide what was taken: `"
    )
    subprocess.run(note.split("`")[1], shell=True, check=True)
    again = load_dataset(tmp_path)
    assert (again.format, again.box_count) == ("yolo", 2)


def test_yolo_beside_voc_in_small_letters_is_told_with_how_to_choose(tmp_path: Path) -> None:
    write_image(tmp_path / "images" / "a.jpg")
    write(tmp_path, "annotations/a.xml", VOC)
    write(tmp_path, "labels/a.txt", BOX * 2)
    write(tmp_path, "data.yaml", "train: images\nnames: [cat]\n")
    dataset = load_dataset(tmp_path, "train")
    assert (dataset.format, dataset.box_count) == ("yolo", 2)
    (note,) = dataset.notes
    assert note.startswith("the folder holds Pascal VOC (annotations), too: taken is YOLO; to take Pascal VOC, hide")
    subprocess.run(note.split("`")[1], shell=True, check=True)
    assert load_dataset(tmp_path).format == "voc"


def test_one_format_alone_is_not_talked_about(tmp_path: Path) -> None:
    write_coco_folder(tmp_path, usual_coco())
    write(tmp_path, "annotations/captions_train2017.json", {"images": [], "annotations": []})
    assert load_dataset(tmp_path, "train").notes == ()
