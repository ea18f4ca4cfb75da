"""VOC folders are read as they are meant, and broken ones refused in one sentence."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from dataset_files import voc_xml, write_image, write_voc_folder
from tood.data import available_splits, load_dataset, pick_splits
from tood.errors import ToodError

XMLS = {
    "b": voc_xml("b", [("dog", (1, 1, 64, 48), 0), ("ant", (11, 6, 20, 15), 1)]),
    "a": voc_xml("a", []),
    "c": voc_xml("c", [("cat", (2, 3, 4, 5), 0)]),
    "d": voc_xml("d", [("dog", (2, 3, 4, 5), 0)]),
}
SPLITS = {"train": ["b"], "val": ["a"], "trainval": ["a", "b"], "test": ["c", "d"]}


def test_corners_count_from_one_and_lie_inside(tmp_path: Path) -> None:
    dataset = load_dataset(write_voc_folder(tmp_path, XMLS, SPLITS), "train")
    assert dataset.format == "voc"
    (image,) = dataset.images
    np.testing.assert_array_equal(image.boxes, [[0, 0, 64, 48], [10, 5, 20, 15]])
    assert image.crowd.tolist() == [False, True]  # `difficult`
    assert image.path == tmp_path / "JPEGImages" / "b.jpg"


def test_classes_and_ids_agree_between_splits(tmp_path: Path) -> None:
    write_voc_folder(tmp_path, XMLS, SPLITS)
    loaded = {name: load_dataset(tmp_path, name) for name in available_splits(tmp_path)}
    assert list(loaded) == ["train", "val", "trainval", "test"]
    assert {dataset.class_names for dataset in loaded.values()} == {("ant", "cat", "dog")}
    assert loaded["train"].images[0].id == loaded["trainval"].images[1].id == 2
    assert loaded["test"].images[1].labels.tolist() == [2]


def test_trained_on_trainval_and_measured_on_test(tmp_path: Path) -> None:
    write_voc_folder(tmp_path, XMLS, SPLITS)
    picked = pick_splits(tmp_path)
    assert (picked.train, picked.val, picked.test, picked.evaluation) == ("trainval", "test", "test", "test")
    assert "validating on 'test'" in picked.note
    mine = pick_splits(tmp_path, train="train")
    assert (mine.train, mine.val) == ("train", "val")
    assert pick_splits(tmp_path, val="train").val == "train"
    with pytest.raises(ToodError, match="no split 'nope'; it has train, val, trainval, test"):
        pick_splits(tmp_path, test="nope")


def test_lists_of_single_classes_are_no_splits(tmp_path: Path) -> None:
    write_voc_folder(tmp_path, XMLS, {**SPLITS, "dog_train": ["b  1"]})
    assert "dog_train" not in available_splits(tmp_path)


def test_without_lists_everything_is_one_split(tmp_path: Path) -> None:
    write_voc_folder(tmp_path, XMLS, {})
    assert list(available_splits(tmp_path)) == ["all"]
    assert len(load_dataset(tmp_path)) == 4
    assert pick_splits(tmp_path).val is None


def test_devkit_folder_and_xml_beside_images(tmp_path: Path) -> None:
    write_voc_folder(tmp_path / "VOCdevkit" / "VOC2007", XMLS, SPLITS)
    assert len(load_dataset(tmp_path / "VOCdevkit", "test")) == 2
    for split, name in (("train", "a"), ("valid", "b")):
        write_image(tmp_path / "flat" / split / f"{name}.jpg")
        (tmp_path / "flat" / split / f"{name}.xml").write_text(XMLS[name])
    assert list(available_splits(tmp_path / "flat")) == ["train", "val"]
    assert load_dataset(tmp_path / "flat", "val").images[0].path.is_file()


def test_size_from_the_image_where_the_xml_has_none(tmp_path: Path) -> None:
    write_voc_folder(tmp_path, {"a": voc_xml("a", [("dog", (1, 1, 10, 10), 0)], 0, 0)}, {"train": ["a"]})
    image = load_dataset(tmp_path, "train").images[0]
    assert (image.width, image.height) == (64, 48)


def test_boxes_without_area_are_dropped_and_those_outside_clipped(tmp_path: Path) -> None:
    boxes = [(5, 5, 5, 5), (5, 5, 5, 9), (9, 5, 5, 9), (60, 40, 80, 60), (100, 100, 110, 110), ("nan", 1, 2, 3)]
    write_voc_folder(tmp_path, {"a": voc_xml("a", [("dog", box, 0) for box in boxes])}, {"train": ["a"]})  # type: ignore[misc]
    dataset = load_dataset(tmp_path, "train")
    np.testing.assert_array_equal(dataset.images[0].boxes, [[59, 39, 64, 48]])
    assert dataset.problem_counts() == {"box_dropped": 5, "box_clipped": 1}
    assert all("a.xml" in problem.file and problem.image_id == 1 for problem in dataset.problems)


BOMB = '<!DOCTYPE x [<!ENTITY a "ha"><!ENTITY b "&a;&a;&a;">]><annotation><filename>&b;</filename></annotation>'
LEAK = '<!DOCTYPE x [<!ENTITY a SYSTEM "file:///etc/passwd">]><annotation><filename>&a;</filename></annotation>'


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (BOMB.encode(), "document type"),
        (LEAK.encode(), "document type"),
        (BOMB.encode("utf-16"), "document type|plain 8-bit"),
        (b"<annotation><object>", r"broken xml.*line 1"),
        (b"", "broken xml"),
        (b"\xff\xd8 no xml", "broken xml"),
        (b'<?xml version="1.0" encoding="klingon"?><annotation/>', "xml"),
        (b"<annotation><object><name>a</name></object></annotation>", "object 1 has no box"),
        (voc_xml("a", [("", (1, 1, 5, 5), 0)]).encode(), "object 1 has no name"),
        (voc_xml("a", [("x", ("one", 1, 5, 5), 0)]).encode(), "no box of four numbers"),  # type: ignore[list-item]
    ],
)
def test_bad_xml_is_refused(tmp_path: Path, content: bytes, sentence: str) -> None:
    write_voc_folder(tmp_path, {"a": ""}, {"train": ["a"]})
    (tmp_path / "Annotations" / "a.xml").write_bytes(content)
    with pytest.raises(ToodError, match=sentence) as caught:
        load_dataset(tmp_path, "train")
    assert "a.xml, image 1" in str(caught.value)


@pytest.mark.parametrize("encoding", ["GB2312", "gbk", "GB18030", "Big5", "Shift_JIS", "EUC-KR", "ISO-8859-1", "utf-8"])
def test_an_xml_may_be_in_the_encoding_that_it_names(tmp_path: Path, encoding: str) -> None:
    name = {"ISO-8859-1": "Äpfel", "EUC-KR": "고양이", "utf-8": "猫"}.get(encoding, "犬")
    text = f'<?xml version="1.0" encoding="{encoding}"?>\n' + voc_xml("a", [(name, (1, 1, 9, 9), 0)])
    write_voc_folder(tmp_path, {"a": ""}, {"train": ["a"]})
    (tmp_path / "Annotations" / "a.xml").write_bytes(text.encode(encoding))
    assert load_dataset(tmp_path, "train").class_names == (name,)


def test_an_xml_that_is_not_utf8_is_mended_by_the_line_that_is_told(tmp_path: Path) -> None:
    text = voc_xml("a", [("老虎", (1, 1, 9, 9), 0)]).encode("gbk")
    write_voc_folder(tmp_path, {"a": ""}, {"train": ["a"]})
    path = tmp_path / "Annotations" / "a.xml"
    path.write_bytes(text)
    with pytest.raises(ToodError, match=r"a\.xml.*is not UTF-8, and does not say what else") as caught:
        load_dataset(tmp_path, "train")
    path.write_bytes(str(caught.value).split("`")[1].encode() + text)
    assert load_dataset(tmp_path, "train").class_names == ("老虎",)


def test_a_document_type_that_is_a_name_alone_is_harmless(tmp_path: Path) -> None:
    text = '<?xml version="1.0"?>\n<!DOCTYPE annotation>\n' + XMLS["b"]
    write_voc_folder(tmp_path, {"b": text}, {"train": ["b"]})
    assert load_dataset(tmp_path, "train").box_count == 2
    path = tmp_path / "Annotations" / "b.xml"
    for more in ("<!DOCTYPE a>", '<!DOCTYPE a SYSTEM "a.dtd">', '<!DOCTYPE a [<!ENTITY b "c">]>'):
        path.write_text(f"<!DOCTYPE annotation>{more}{XMLS['b']}")
        with pytest.raises(ToodError, match="document type"):
            load_dataset(tmp_path, "train")


def test_missing_files_are_refused(tmp_path: Path) -> None:
    write_voc_folder(tmp_path, XMLS, {**SPLITS, "train": ["b", "zz"]})
    with pytest.raises(ToodError, match=r"names 'zz', but there is no annotation zz\.xml"):
        load_dataset(tmp_path, "train")
    (tmp_path / "JPEGImages" / "c.jpg").unlink()
    with pytest.raises(ToodError, match="there is no image file of this name"):
        load_dataset(tmp_path, "test")
    assert len(load_dataset(tmp_path, "test", images_required=False)) == 2


def test_test_images_without_annotations(tmp_path: Path) -> None:
    write_voc_folder(tmp_path, XMLS, {**SPLITS, "test": ["x"]})
    write_image(tmp_path / "JPEGImages" / "x.jpg")
    dataset = load_dataset(tmp_path, "test")
    assert not dataset.annotated
    assert (dataset.images[0].width, dataset.images[0].height) == (64, 48)
    assert pick_splits(tmp_path).test is None
    assert pick_splits(tmp_path).train == "train"


def test_real_blood_cells(real_data: Path) -> None:
    loaded = {name: load_dataset(real_data / "bccd", name) for name in ("trainval", "test")}
    assert {name: len(dataset) for name, dataset in loaded.items()} == {"trainval": 292, "test": 72}
    assert loaded["test"].class_names == ("Platelets", "RBC", "WBC")
    labels = np.concatenate([image.labels for dataset in loaded.values() for image in dataset.images])
    assert np.bincount(labels).tolist() == [361, 4155 - 2, 372]
    assert [problem.kind for dataset in loaded.values() for problem in dataset.problems] == ["box_dropped"] * 2
