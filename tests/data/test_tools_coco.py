"""What well-known tools write as COCO jsons is read as they mean it, and evaluated as it is read."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unicodedata import normalize

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools import mask as reference_mask
from typer.testing import CliRunner

from data.tools_coco import TOOLS
from data.tools_common import in_order, read_back
from data.tools_voc import Expected
from dataset_files import box_row, coco, image_row, write_coco_folder, write_image
from tood.cli.main import app
from tood.data import available_splits, check_dataset, convert_dataset, load_dataset
from tood.data.formats.coco_content import make_plain
from tood.errors import ToodError
from tood.evaluation import GroundTruth


@pytest.mark.parametrize("tool", TOOLS, ids=lambda tool: tool.__name__)
def test_data_check_recognises_the_tools_folder(tool: Callable[[Path], Expected], tmp_path: Path) -> None:
    expected = tool(tmp_path / "data")
    assert in_order(read_back(tmp_path / "data")) == in_order(expected)
    result = CliRunner().invoke(app, ["data", "check", str(tmp_path / "data"), "--json", str(tmp_path / "report.json")])
    assert result.exit_code == 0, result.output
    reports = {report["split"]: report for report in json.loads((tmp_path / "report.json").read_text())}
    assert reports.keys() == expected.keys()
    for split, report in reports.items():
        assert report["format"] == "coco"
        assert report["images"] == len(expected[split])
        assert report["boxes"] == sum(map(len, expected[split].values()))


@pytest.mark.parametrize("tool", TOOLS, ids=lambda tool: tool.__name__)
def test_evaluation_reads_the_same(tool: Callable[[Path], Expected], tmp_path: Path) -> None:
    for split in tool(tmp_path):
        dataset = load_dataset(tmp_path, split)
        truth = GroundTruth.from_dataset(dataset)
        assert truth.image_ids.tolist() == [image.id for image in dataset.images]
        assert sorted(truth.categories.values()) == sorted(dataset.class_names)
        corners = np.concatenate([truth.boxes[:, :2], truth.boxes[:, :2] + truth.boxes[:, 2:]], axis=1)
        read = np.concatenate([image.boxes for image in dataset.images])
        assert sorted(corners.round(2).tolist()) == sorted(read.round(2).tolist())
        assert sorted(truth.crowd.tolist()) == sorted(np.concatenate([i.crowd for i in dataset.images]).tolist())


@pytest.mark.parametrize("tool", TOOLS, ids=lambda tool: tool.__name__)
def test_what_was_found_converts(tool: Callable[[Path], Expected], tmp_path: Path) -> None:
    expected = tool(tmp_path / "data")
    convert_dataset(tmp_path / "data", tmp_path / "out", "coco")
    for split, images in expected.items():
        dataset = load_dataset(tmp_path / "out", split)
        assert (len(dataset), dataset.box_count) == (len(images), sum(map(len, images.values())))
        assert not dataset.problems


def _folder(root: Path, names: list[str], files: list[str]) -> Path:
    """A COCO folder whose json names `names` and that has the pictures `files`."""
    rows = [image_row(number, name) for number, name in enumerate(names, start=1)]
    content = coco(rows, [box_row(row["id"], row["id"]) for row in rows], {3: "cat"})
    write_coco_folder(root, content, images=False)
    for seed, file in enumerate(files):
        write_image(root / file, seed=seed)
    return root


def _found(root: Path) -> list[str]:
    return [image.path.relative_to(root).as_posix() for image in load_dataset(root, "train").images]


def test_jsons_of_another_kind_are_no_dataset(tmp_path: Path) -> None:
    labelme = {"version": "5.0.1", "shapes": [], "imagePath": "a.jpg", "imageData": None}
    (tmp_path / "a.json").write_text(json.dumps(labelme))
    (tmp_path / "broken.json").write_text('{"images": [], "categories": [')
    (tmp_path / "panoptic.json").write_text(
        json.dumps({"images": [], "categories": [], "annotations": [{"image_id": 1, "segments_info": []}]})
    )
    write_image(tmp_path / "a.jpg")
    with pytest.raises(ToodError, match="no dataset that is known"):
        load_dataset(tmp_path)


def test_files_found_elsewhere_are_told_once_with_their_number(tmp_path: Path) -> None:
    root = _folder(tmp_path, ["/x/a.jpg", "/x/b.jpg", "c.jpg"], ["images/a.jpg", "images/b.jpg", "train2017/c.jpg"])
    assert _found(root) == ["images/a.jpg", "images/b.jpg", "train2017/c.jpg"]
    (warning,) = check_dataset(root, "train").of("warning")
    assert "2 of 3 image files are not where the file says" in warning.message
    assert "'/x/a.jpg'" in warning.message


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("train2017/a.jpg", "train2017/a.jpg"),
        ("images\\a.jpg", "train2017/a.jpg"),
        ("a.JPG", "train2017/a.jpg"),
        ("a.jpg", "train2017/A.jpeg/../A.JPG"),
        ("a", "train2017/a.jpg"),
        ("v1.2", "train2017/v1.2.png"),
        ("https://host/bucket/a%20b.jpg?token=x/y", "train2017/a b.jpg"),
        (normalize("NFC", "Käse/é.jpg"), normalize("NFD", "train2017/Käse/é.jpg")),
        (normalize("NFD", "é.jpg"), normalize("NFC", "train2017/é.jpg")),
    ],
)
def test_a_name_finds_its_file(tmp_path: Path, name: str, file: str) -> None:
    (tmp_path / "train2017" / "A.jpeg").mkdir(parents=True)
    root = _folder(tmp_path, [name, "other.jpg"], [file, "train2017/other.jpg"])
    assert (root / file).samefile(load_dataset(root, "train").images[0].path)


def test_files_of_the_same_name_are_told_apart_by_their_folders_or_refused(tmp_path: Path) -> None:
    files = ["images/one/a.jpg", "images/two/a.jpg"]
    assert _found(_folder(tmp_path / "x", ["/disk/two/a.jpg", "/disk/one/a.jpg"], files)) == files[::-1]
    with pytest.raises(ToodError, match=r"'/disk/a.jpg' is not in .*, and 2 others are called so .*cannot be told"):
        _found(_folder(tmp_path / "y", ["/disk/a.jpg"], files))


def test_one_file_is_not_taken_for_two_images(tmp_path: Path) -> None:
    root = _folder(tmp_path / "x", ["one/a.jpg", "two/a.jpg"], ["images/a.jpg"])
    with pytest.raises(ToodError, match=r"'two/a.jpg' is not in .* is that of 'one/a.jpg'"):
        _found(root)
    root = _folder(tmp_path / "y", ["one/a.jpg", "a.jpg"], ["train2017/a.jpg"])
    with pytest.raises(ToodError, match=r"'one/a.jpg' is not in .* is that of 'a.jpg'"):
        _found(root)


def test_a_picture_of_another_suffix_is_taken_if_it_is_the_only_one_and_told(tmp_path: Path) -> None:
    files = ["train2017/a.jpg", "train2017/b.jpg"]
    root = _folder(tmp_path / "x", ["a.png", "b.jpg"], files)
    assert _found(root) == files
    (warning,) = check_dataset(root, "train").of("warning")
    assert "1 of 2 image files are not where the file says" in warning.message
    with pytest.raises(ToodError, match=r"'a.png' is not in .* is that of 'a.jpg'"):
        _found(_folder(tmp_path / "y", ["a.png", "a.jpg"], files))
    with pytest.raises(ToodError, match=r"'a.png' is not in .*, and 2 others are called so"):
        _found(_folder(tmp_path / "z", ["a.png", "b.jpg"], [*files, "train2017/a.bmp"]))


def test_only_peoples_keypoints_are_a_dataset_of_their_boxes(tmp_path: Path) -> None:
    """CVAT's COCO Keypoints 1.0."""
    row = box_row(1, 1, keypoints=[5, 6, 2], num_keypoints=1)
    json_file = write_coco_folder(tmp_path, coco([image_row(1)], [row], {3: "person"}), images=False)
    json_file.rename(json_file.with_name("person_keypoints_default.json"))
    write_image(tmp_path / "images" / "1.png")
    assert list(available_splits(tmp_path)) == ["default"]
    assert load_dataset(tmp_path).images[0].boxes.tolist() == [[4, 5, 24, 15]]
    (tmp_path / "annotations" / "instances_val.json").write_text(json.dumps(coco([image_row(1)], [], {3: "cat"})))
    assert list(available_splits(tmp_path)) == ["val"]


def test_sides_written_as_texts_are_numbers(tmp_path: Path) -> None:
    row = {**image_row(1), "width": "64", "height": "48"}
    write_coco_folder(tmp_path, coco([row], [box_row(1, 1)], {3: "cat"}), images=False)
    write_image(tmp_path / "train2017" / "1.png")
    (image,) = load_dataset(tmp_path, "train").images
    assert (image.width, image.height, image.boxes.tolist()) == (64, 48, [[4, 5, 24, 15]])


def test_annotations_without_an_id_are_numbered_and_told(tmp_path: Path) -> None:
    rows = [box_row(number, 1, (number, 5, 20, 10)) for number in range(4)]
    for row in (rows[0], rows[2]):
        del row["id"]
    write_coco_folder(tmp_path, coco([image_row(1)], rows, {3: "cat"}))
    dataset = load_dataset(tmp_path, "train")
    assert dataset.images[0].annotation_ids.tolist() == [4, 1, 5, 3]
    (problem,) = dataset.problems
    assert problem.message == "2 of its annotations have no id: numbered in their order"


@pytest.mark.parametrize(
    ("row", "sentence"),
    [
        ({"id": "007"}, 'its id is "007"'),
        ({"id": "one"}, 'its id is "one"'),
        ({"id": 1.5}, r"its id is 1\.5"),
        ({"id": 2.0**60}, "its id is"),
        ({"width": 64.5}, r"its width is 64\.5"),
    ],
)
def test_what_is_no_whole_number_is_refused(tmp_path: Path, row: dict[str, Any], sentence: str) -> None:
    write_coco_folder(tmp_path, coco([{**image_row(1), **row}], [], {3: "cat"}), images=False)
    write_image(tmp_path / "train2017" / "1.png")
    with pytest.raises(ToodError, match=sentence):
        load_dataset(tmp_path, "train")


def test_boxes_of_masks_are_told_and_boxless_annotations_refused(tmp_path: Path) -> None:
    rows = [box_row(1, 1), box_row(2, 1, segmentation=[[1, 2, 11, 2, 11, 22]]), box_row(3, 1, segmentation=[])]
    for row in rows[1:]:
        row["bbox"] = None
    write_coco_folder(tmp_path, coco([image_row(1)], rows[:2], {3: "cat"}))
    dataset = load_dataset(tmp_path, "train")
    np.testing.assert_array_equal(dataset.images[0].boxes[1], [1, 2, 11, 22])
    (problem,) = dataset.problems
    assert problem.message.startswith("1 of its annotations have no bbox")
    write_coco_folder(tmp_path, coco([image_row(1)], rows, {3: "cat"}))
    with pytest.raises(ToodError, match=r"annotation 3: .*its bbox is missing"):
        load_dataset(tmp_path, "train")


def test_a_size_that_nobody_tells_is_refused(tmp_path: Path) -> None:
    rows = [image_row(1), {"id": 2, "file_name": "2.png"}]
    write_coco_folder(tmp_path, coco(rows, [box_row(1, 1)], {3: "cat"}), images=False)
    write_image(tmp_path / "train2017" / "1.png")
    (tmp_path / "train2017" / "2.png").write_bytes(b"no picture")
    with pytest.raises(ToodError, match=r"image 2: tells no width and height, and .*2\.png"):
        load_dataset(tmp_path, "train")
    write_image(tmp_path / "train2017" / "2.png", 40, 30)
    dataset = load_dataset(tmp_path, "train")
    assert [(image.width, image.height) for image in dataset.images] == [(64, 48), (40, 30)]
    assert "1 of its images have no width and height" in dataset.problems[0].message


@settings(max_examples=150, deadline=None)
@given(data=st.data(), height=st.integers(1, 9), width=st.integers(1, 9), compressed=st.booleans())
def test_boxes_of_run_lengths_are_those_of_pycocotools(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject, height: int, width: int, compressed: bool
) -> None:
    pixels = data.draw(st.lists(st.booleans(), min_size=height * width, max_size=height * width))
    mask = np.array(pixels, np.uint8).reshape(height, width)
    encoded = reference_mask.encode(np.asfortranarray(mask))
    told: dict[str, Any] = {"size": [height, width], "counts": encoded["counts"].decode()}
    if not compressed:
        flat = np.concatenate([[0], mask.T.reshape(-1), [0]])
        edges = np.concatenate([[0], np.flatnonzero(np.diff(flat)), [height * width]])
        told["counts"] = np.diff(edges).tolist()
    content = {"annotations": [{"id": 1, "segmentation": told}]}
    path = tmp_path_factory.mktemp("mask") / "a.json"
    path.write_text(json.dumps(content))
    added = make_plain(content, path)
    assert added == int(mask.any())
    if mask.any():
        assert content["annotations"][0]["bbox"] == reference_mask.toBbox(encoded).tolist()


@settings(max_examples=200, deadline=None)
@given(
    counts=st.text(max_size=12) | st.lists(st.integers(-5, 60) | st.floats(), max_size=6),
    size=st.lists(st.integers(-2, 9), max_size=3),
)
def test_broken_masks_give_no_box_or_a_box(
    tmp_path_factory: pytest.TempPathFactory, counts: Any, size: list[int]
) -> None:
    content: dict[str, Any] = {"annotations": [{"segmentation": {"counts": counts, "size": size}}]}
    path = tmp_path_factory.mktemp("mask") / "a.json"
    path.write_text(json.dumps(content))
    if make_plain(content, path):
        assert all(value >= 0 for value in content["annotations"][0]["bbox"])
