"""What well-known tools write as Pascal VOC is read as they mean it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from shutil import rmtree
from unicodedata import normalize

import pytest
from typer.testing import CliRunner

from data.tools_common import in_order, objects_of, read_back
from data.tools_voc import (
    TOOLS,
    Expected,
    kangaroo,
    oxford_pets_with_lists,
    raccoon,
    vott_voc,
)
from dataset_files import voc_xml, write_image, write_voc_folder, write_yolo_folder
from tood.cli.main import app
from tood.data import available_splits, check_dataset, convert_dataset, load_dataset
from tood.errors import ToodError


@pytest.mark.parametrize("tool", TOOLS, ids=lambda tool: tool.__name__)
def test_data_check_recognises_the_tools_folder(tool: Callable[[Path], Expected], tmp_path: Path) -> None:
    expected = tool(tmp_path / "data")
    assert in_order(read_back(tmp_path / "data")) == in_order(expected)
    result = CliRunner().invoke(app, ["data", "check", str(tmp_path / "data"), "--json", str(tmp_path / "report.json")])
    assert result.exit_code == 0, result.output
    reports = {report["split"]: report for report in json.loads((tmp_path / "report.json").read_text())}
    for split, report in reports.items():
        assert report["format"] == "voc"
        assert report["images"] == len(expected[split])
        assert report["boxes"] == sum(map(len, expected[split].values()))
    assert reports.keys() == expected.keys() - ({"trainval"} if "train" in expected else set())


def _told(root: Path, split: str = "all") -> list[str]:
    return [str(problem) for problem in check_dataset(root, split).of("warning")]


def test_of_two_pictures_the_one_that_the_xml_names_is_taken(tmp_path: Path) -> None:
    write_voc_folder(tmp_path, {"a": voc_xml("a", [("cat", (1, 1, 9, 9), 0)]).replace("a.jpg", "a.png")}, {})
    write_image(tmp_path / "JPEGImages" / "a.png", seed=1)
    (image,) = load_dataset(tmp_path).images
    assert image.path.name == "a.png"
    assert any("names a.png: taken, and not" in line and "a.jpg" in line for line in _told(tmp_path))


def test_of_two_pictures_none_is_guessed(tmp_path: Path) -> None:
    for told, sentence in (("<filename/>", "names none of them"), ("<filename>b.gif</filename>", "names b.gif")):
        root = tmp_path / sentence
        write_voc_folder(root, {"a": voc_xml("a", []).replace("<filename>a.jpg</filename>", told)}, {})
        write_image(root / "JPEGImages" / "a.png", seed=1)
        with pytest.raises(ToodError, match=rf"has the pictures a.jpg and a.png and {sentence}"):
            load_dataset(root)


def test_the_only_picture_is_taken_for_another_suffix_and_told(tmp_path: Path) -> None:
    write_voc_folder(tmp_path, {"a": voc_xml("a", []).replace("a.jpg", "a.png")}, {})
    assert load_dataset(tmp_path).images[0].path.name == "a.jpg"
    assert any("names a.png, which is not there: a.jpg is taken" in line for line in _told(tmp_path))


def test_a_picture_of_another_name_is_the_one_that_the_xml_names_unless_it_is_anothers(tmp_path: Path) -> None:
    named_a = voc_xml("a", [("cat", (1, 1, 9, 9), 0)])
    write_voc_folder(tmp_path / "one", {"a": named_a}, {})
    (tmp_path / "one" / "Annotations" / "a.xml").rename(tmp_path / "one" / "Annotations" / "renamed.xml")
    assert load_dataset(tmp_path / "one").images[0].path.name == "a.jpg"
    write_voc_folder(tmp_path / "two", {"a": named_a, "b": named_a}, {})
    (tmp_path / "two" / "JPEGImages" / "b.jpg").unlink()
    with pytest.raises(ToodError, match="there is no image file of this name"):
        load_dataset(tmp_path / "two")
    for name in ("b", "c"):
        path = tmp_path / "three" / "Annotations" / f"{name}.xml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(named_a)
    write_image(tmp_path / "three" / "images" / "a.jpg")
    with pytest.raises(ToodError, match="would be its picture and that of 'b': only one of the two can be right"):
        load_dataset(tmp_path / "three")


def test_pictures_in_other_folders_are_found_by_a_name_of_their_own_alone(tmp_path: Path) -> None:
    root = tmp_path / "data"
    write_voc_folder(root, {"a": voc_xml("a", []), "b": voc_xml("b", [])}, {})
    for name, folder in (("a", "deep"), ("b", "deep"), ("b", "other")):
        write_image(root / "JPEGImages" / folder / f"{name}.jpg")
        (root / "JPEGImages" / f"{name}.jpg").unlink(missing_ok=True)
    report = check_dataset(root)
    (error,) = report.of("error")
    assert "b.xml" in error.file
    assert "several pictures may be its own" in error.message


@pytest.mark.parametrize(
    ("lines", "wanted"),
    [
        ("a\nb\n", ["a", "b"]),
        ("a  1\nb -1\n", ["a", "b"]),
        ("a 0\r\nb 1\r\n", ["a", "b"]),
        ("photo 0\nphoto 1\n", ["photo 0", "photo 1"]),
        ("photo 0  1\nphoto 1 -1\n", ["photo 0", "photo 1"]),
        ("photo 0\na 1\n", ["photo 0", "a"]),
        ('"photo 0"\n"photo 1" -1\n', ["photo 0", "photo 1"]),
        ("a.jpg\nJPEGImages/b.jpg\n", ["a", "b"]),
        ("/home/me/voc/JPEGImages/a.jpg\nC:\\voc\\JPEGImages\\photo 1.jpg\n", ["a", "photo 1"]),
        ("JPEGImages/photo 0.jpg Annotations/photo 0.xml\n", ["photo 0"]),
        ("\ufeffa\n\n  b  \n", ["a", "b"]),
        (normalize("NFD", "Käse") + "\n", ["Käse"]),
        ("a\na\nJPEGImages/a.jpg\n", ["a"]),
    ],
)
def test_a_line_of_a_list_names_its_image(tmp_path: Path, lines: str, wanted: list[str]) -> None:
    names = ("a", "b", "photo 0", "photo 1", "Käse")
    write_voc_folder(tmp_path, {name: voc_xml(name, []) for name in names}, {})
    (tmp_path / "ImageSets" / "Main" / "train.txt").write_bytes(lines.encode())
    dataset = load_dataset(tmp_path, "train")
    assert [image.path.stem for image in dataset.images] == wanted
    assert len(dataset.problems) == lines.startswith("a\na\n")


def test_a_path_in_a_list_means_its_own_folder(tmp_path: Path) -> None:
    """A name of another folder is not taken for it, whether or not it has an annotation."""
    for name in ("one/a", "two/b"):
        path = tmp_path / "Annotations" / f"{name}.xml"
        path.parent.mkdir(parents=True)
        path.write_text(voc_xml(name, []))
        write_image(tmp_path / "JPEGImages" / f"{name}.jpg")
    write_image(tmp_path / "JPEGImages" / "two" / "a.jpg")
    lists = tmp_path / "ImageSets" / "Main"
    lists.mkdir(parents=True)
    (lists / "train.txt").write_text("b\nJPEGImages/one/a.jpg\n")
    (lists / "val.txt").write_text("two/b\ntwo/a\n")
    paths = [image.path.relative_to(tmp_path).as_posix() for image in load_dataset(tmp_path, "train").images]
    assert paths == ["JPEGImages/two/b.jpg", "JPEGImages/one/a.jpg"]
    with pytest.raises(ToodError, match="names 'two/a', but there is no annotation"):
        load_dataset(tmp_path, "val")


def test_a_yolo_yaml_beside_xml_says_more(tmp_path: Path) -> None:
    raccoon(tmp_path)
    assert load_dataset(tmp_path).format == "voc"
    write_yolo_folder(tmp_path, {"train/a": "0 0.5 0.5 0.1 0.1", "val/a": ""})
    assert load_dataset(tmp_path, "train").format == "yolo"


def test_what_lies_deeper_does_not_outrank_the_folder_itself(tmp_path: Path) -> None:
    kangaroo(tmp_path / "backup" / "voc")
    assert load_dataset(tmp_path).format == "voc"
    kangaroo(tmp_path / "backup" / "older")
    with pytest.raises(ToodError, match=r"several VOC datasets \(backup/older, backup/voc\): name one"):
        load_dataset(tmp_path)
    rmtree(tmp_path / "backup" / "older")
    write_yolo_folder(tmp_path, {"train/a": "0 0.5 0.5 0.1 0.1", "val/a": ""})
    assert load_dataset(tmp_path, "train").format == "yolo"


@pytest.mark.parametrize("tool", TOOLS, ids=lambda tool: tool.__name__)
@pytest.mark.parametrize("to", ["coco", "voc"])
def test_what_was_found_converts(tool: Callable[[Path], Expected], to: str, tmp_path: Path) -> None:
    expected = tool(tmp_path / "data")
    convert_dataset(tmp_path / "data", tmp_path / "out", to)
    for split in available_splits(tmp_path / "out"):
        dataset = load_dataset(tmp_path / "out", split)
        wanted = sorted(item for items in expected[split].values() for item in items)
        assert sorted(item for items in objects_of(dataset, tmp_path).values() for item in items) == wanted
        assert len(dataset) == len(expected[split])


def test_names_that_macos_took_apart_are_found(tmp_path: Path) -> None:
    apart, composed = normalize("NFD", "Käse"), normalize("NFC", "Käse")
    write_voc_folder(tmp_path, {apart: voc_xml(composed, [("cat", (1, 1, 9, 9), 0)])}, {"train": [composed]})
    assert len(load_dataset(tmp_path, "train").images[0].boxes) == 1


def test_pictures_without_an_annotation_are_told(tmp_path: Path) -> None:
    write_voc_folder(tmp_path, {"a": voc_xml("a", [])}, {})
    write_image(tmp_path / "JPEGImages" / "b.jpg")
    assert any("1 of the pictures have no annotation" in line and "b.jpg" in line for line in _told(tmp_path))
    assert not load_dataset(tmp_path, images_required=False).problems


def test_an_xml_of_something_else_is_no_annotation(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "annotations.xml").write_text("<annotations><version>1.1</version><image id='0'/></annotations>")
    write_image(tmp_path / "images" / "a.jpg")
    with pytest.raises(ToodError, match="no dataset that is known"):
        available_splits(tmp_path)
    (tmp_path / "Annotations").mkdir()
    (tmp_path / "annotations.xml").rename(tmp_path / "Annotations" / "a.xml")
    with pytest.raises(ToodError, match="is xml, but no VOC annotation: its root is <annotations>"):
        load_dataset(tmp_path)


def test_a_broken_xml_beside_its_picture_is_told_among_sound_ones_alone(tmp_path: Path) -> None:
    write_image(tmp_path / "a.jpg")
    (tmp_path / "a.xml").write_text("")
    with pytest.raises(ToodError, match="no dataset that is known"):
        available_splits(tmp_path)
    write_image(tmp_path / "b.jpg")
    (tmp_path / "b.xml").write_text(voc_xml("b", []))
    with pytest.raises(ToodError, match=r"a\.xml, image 1: broken xml"):
        load_dataset(tmp_path)


def test_polygons_are_told_and_boxes_that_are_turned_refused(tmp_path: Path) -> None:
    points = "".join(f"<x{n}>{x}</x{n}><y{n}>{y}</y{n}>" for n, (x, y) in enumerate([(10, 5), (30, 9), (20, 25)], 1))
    text = f"<annotation><object><name>cat</name><polygon>{points}</polygon></object></annotation>"
    write_voc_folder(tmp_path, {"a": text}, {})
    assert load_dataset(tmp_path).images[0].boxes.tolist() == [[9, 4, 30, 25]]
    assert any("1 of its objects have a polygon and no bndbox" in line for line in _told(tmp_path))
    turned = "<robndbox><cx>9</cx><cy>9</cy><w>4</w><h>4</h><angle>0.3</angle></robndbox>"
    (tmp_path / "Annotations" / "a.xml").write_text(text.replace(f"<polygon>{points}</polygon>", turned))
    with pytest.raises(ToodError, match="object 1 has no box of four numbers"):
        load_dataset(tmp_path)


def test_a_coco_json_beside_stray_xml_stays_coco(tmp_path: Path) -> None:
    content = {"images": [{"id": 1, "file_name": "a.jpg", "width": 64, "height": 48}], "annotations": []}
    (tmp_path / "annotations").mkdir()
    (tmp_path / "annotations" / "instances_train.json").write_text(json.dumps({**content, "categories": []}))
    (tmp_path / "annotations" / "a.xml").write_text(voc_xml("a", []))
    write_image(tmp_path / "images" / "a.jpg")
    assert load_dataset(tmp_path).format == "coco"


def test_real_raccoons(real_data: Path) -> None:
    dataset = load_dataset(real_data / "raccoon")
    assert (len(dataset), dataset.box_count, dataset.class_names) == (200, 217, ("raccoon",))


def test_lists_of_single_classes_that_make_splits_are_told(tmp_path: Path) -> None:
    vott_voc(tmp_path)
    assert load_dataset(tmp_path, "train").notes == (
        "there are lists of single classes alone (cat_train.txt and so on): together they are taken for the splits",
    )
    assert load_dataset(tmp_path, "val").notes == ()


def test_lists_of_single_classes_that_make_no_splits_are_seen_and_told(tmp_path: Path) -> None:
    vott_voc(tmp_path)
    (tmp_path / "ImageSets" / "Main" / "dog_val.txt").write_text("a.jpg 1\n")
    assert list(available_splits(tmp_path)) == ["all"]
    (note,) = load_dataset(tmp_path).notes
    assert note.startswith("lists of pictures were seen and not used (ImageSets/Main/cat_train.txt, ")


def test_lists_of_other_names_are_seen_and_told(tmp_path: Path) -> None:
    write_voc_folder(tmp_path, {name: voc_xml(name, []) for name in "abc"}, {})
    (tmp_path / "part_one.txt").write_text("a\nb\n")
    (tmp_path / "README.txt").write_text("made by hand\n")
    (note,) = load_dataset(tmp_path).notes
    assert note == (
        "lists of pictures were seen and not used (part_one.txt): call those of splits train.txt, val.txt ..."
    )
    (tmp_path / "part_one.txt").rename(tmp_path / "train.txt")
    assert [image.path.stem for image in load_dataset(tmp_path, "train").images] == ["a", "b"]


def test_names_in_unusual_lists_without_annotation_are_left_out_and_told(tmp_path: Path) -> None:
    oxford_pets_with_lists(tmp_path)
    (told, *_) = load_dataset(tmp_path, "trainval").notes
    assert told == f"1 names in the lists of {tmp_path / 'annotations'} have no annotation and are left out"


def test_a_picture_without_annotation_is_told_once(tmp_path: Path) -> None:
    write_voc_folder(tmp_path, {"a": voc_xml("a", [])}, {})
    write_image(tmp_path / "JPEGImages" / "b.jpg")
    report = check_dataset(tmp_path)
    assert [problem.kind for problem in report.of("warning")] == ["unannotated"]
    assert report.notes == ()
