"""COCO jsons are read as they are meant, and broken ones refused in one sentence."""

from __future__ import annotations

import contextlib
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dataset_files import box_row, coco, image_row, usual_coco, write_coco_folder, write_image
from tood.data import DetectionDataset, available_splits, load_dataset, pick_splits, require_same_categories, write_coco
from tood.errors import ToodError


def test_reads_ids_names_boxes_crowds_and_areas_as_they_are(tmp_path: Path) -> None:
    write_coco_folder(tmp_path, usual_coco())
    dataset = load_dataset(tmp_path, "train")
    assert dataset.format == "coco"
    assert [(c.id, c.name) for c in dataset.categories] == [(3, "cat"), (90, "tooth brush")]
    assert [image.id for image in dataset.images] == [3, 7, 900_000_000_012]
    empty, two, crowd = dataset.images
    assert empty.boxes.shape == (0, 4)
    assert empty.boxes.dtype == np.float32
    np.testing.assert_array_equal(two.boxes, [[4, 5, 24, 15], [0, 0, 64, 48]])
    np.testing.assert_array_equal(two.labels, [0, 1])
    np.testing.assert_array_equal(two.annotation_ids, [11, 6])
    np.testing.assert_array_equal(two.areas, [123.0, 64 * 48])
    np.testing.assert_array_equal(crowd.boxes, [[10.25, 0, 30.75, 60]])
    assert crowd.crowd.tolist() == [True]
    assert crowd.path == tmp_path / "train2017" / "sub" / "a.png"
    assert crowd.name == "sub/a.png"
    assert dataset.problems == ()


@pytest.mark.parametrize("name", ["train", "train2017", "instances_train2017"])
def test_a_split_answers_to_its_usual_names(tmp_path: Path, name: str) -> None:
    write_coco_folder(tmp_path, usual_coco())
    assert load_dataset(tmp_path, name).split == "train"


def test_path_straight_to_a_json(tmp_path: Path) -> None:
    path = write_coco_folder(tmp_path, usual_coco(), "val")
    dataset = load_dataset(path)
    assert dataset.images[0].path.is_file()
    assert list(available_splits(path)) == ["val"]


def test_roboflow_layout(tmp_path: Path) -> None:
    for split in ("train", "valid"):
        content = coco([image_row(0)], [box_row(0, 0)], {0: "things", 3: "cat"})
        write_image(tmp_path / split / "0.png")
        (tmp_path / split / "_annotations.coco.json").write_text(json.dumps(content))
    assert list(available_splits(tmp_path)) == ["train", "val"]
    assert load_dataset(tmp_path, "valid").images[0].path == tmp_path / "valid" / "0.png"


@pytest.mark.parametrize("folder", ["images", "images/train", "train", "."])
def test_images_are_found_where_people_put_them(tmp_path: Path, folder: str) -> None:
    (tmp_path / "annotations").mkdir()
    (tmp_path / "train").mkdir()
    (tmp_path / "annotations" / "train.json").write_text(json.dumps(coco([image_row(1)], [], {3: "cat"})))
    path = write_image(tmp_path / folder / "1.png")
    assert load_dataset(tmp_path, "train").images[0].path.samefile(path)


def test_images_are_not_opened_while_loading(tmp_path: Path) -> None:
    write_coco_folder(tmp_path, usual_coco())
    (tmp_path / "train2017" / "7.png").write_bytes(b"no image")
    assert len(load_dataset(tmp_path, "train")) == 3


def test_test_images_without_annotations(tmp_path: Path) -> None:
    write_coco_folder(tmp_path, usual_coco())
    write_image(tmp_path / "test2017" / "000000000042.png")
    dataset = load_dataset(tmp_path, "test")
    assert not dataset.annotated
    assert [image.id for image in dataset.images] == [42]
    assert dataset.class_names == ("cat", "tooth brush")
    assert pick_splits(tmp_path).test is None


def test_image_info_json_has_no_annotations(tmp_path: Path) -> None:
    write_coco_folder(tmp_path, usual_coco())
    content = coco([image_row(1)], [], {3: "cat"})
    del content["annotations"]
    (tmp_path / "annotations" / "image_info_test-dev2017.json").write_text(json.dumps(content))
    write_image(tmp_path / "test2017" / "1.png")
    dataset = load_dataset(tmp_path, "test-dev")
    assert not dataset.annotated
    assert dataset.images[0].path.is_file()


def test_boxes_outside_are_clipped_and_senseless_ones_dropped_and_told(tmp_path: Path) -> None:
    boxes = [
        (60, 40, 20, 20),
        (10, 10, 0, 5),
        (10, 10, 5, -3),
        (70, 10, 5, 5),
        (float("nan"), 1, 2, 3),
        (1, 1, 63.3, 5),
    ]
    content = coco([image_row(1)], [box_row(i, 1, box) for i, box in enumerate(boxes)], {3: "cat"})
    write_coco_folder(tmp_path, content)
    dataset = load_dataset(tmp_path, "train")
    np.testing.assert_allclose(dataset.images[0].boxes, [[60, 40, 64, 48], [1, 1, 64, 6]])
    told = {problem.annotation_id: problem for problem in dataset.problems}
    assert {number: problem.kind for number, problem in told.items()} == {
        0: "box_clipped",
        **dict.fromkeys((1, 2, 3, 4), "box_dropped"),
    }
    assert all(problem.severity == "warning" and problem.image_id == 1 for problem in told.values())
    assert "no area" in told[1].message
    assert "negative" in told[2].message
    assert "outside" in told[3].message
    assert dataset.problem_counts() == {"box_dropped": 4, "box_clipped": 1}


def test_annotation_of_an_unknown_image_is_dropped_and_told(tmp_path: Path) -> None:
    write_coco_folder(tmp_path, coco([image_row(1)], [box_row(1, 1), box_row(2, 99)], {3: "cat"}))
    dataset = load_dataset(tmp_path, "train")
    assert dataset.box_count == 1
    assert [(p.kind, p.image_id, p.annotation_id) for p in dataset.problems] == [("unknown_image", 99, 2)]


ONE = image_row(1)
REFUSED: list[tuple[Any, str]] = [
    (coco([ONE], [box_row(8, 1, category=4)], {3: "cat"}), r"image 1, annotation 8: category id 4"),
    (coco([ONE, ONE], [], {3: "cat"}), r"image 1: image id is there twice"),
    (coco([ONE], [box_row(8, 1), box_row(8, 1)], {3: "cat"}), r"annotation 8: annotation id is there twice"),
    (coco([ONE], [box_row(8, 1, ("1", 2, 3, 4))], {3: "cat"}), r"annotation 8: annotations\[0\]: its bbox"),
    (coco([ONE], [box_row(8, 1, (1, 2, 3))], {3: "cat"}), r"its bbox is \[1, 2, 3\], not four numbers"),
    (coco([ONE], [box_row(8, 1, iscrowd="no")], {3: "cat"}), r"its iscrowd"),
    (coco([ONE], [box_row(8, 1, area=[])], {3: "cat"}), r"its area"),
    (coco([ONE], [{"id": 8}], {3: "cat"}), r"its image_id is missing"),
    (coco([ONE], [None], {3: "cat"}), r"annotations\[0\] is missing, not an object"),
    (coco([ONE], [box_row(1 << 70, 1)], {3: "cat"}), r"its id is"),
    (coco([ONE], [box_row(1, 1, (1 << 2000, 1, 1, 1))], {3: "cat"}), r"its bbox"),
    (coco([{**ONE, "width": 0}], [], {3: "cat"}), r"its width is 0"),
    (coco([{**ONE, "height": "48px"}], [], {3: "cat"}), r"its height"),
    (coco([{**ONE, "file_name": None}], [], {3: "cat"}), r"its file_name"),
    (coco([{**ONE, "id": True}], [], {3: "cat"}), r"its id is true"),
    ({"images": [ONE], "annotations": [], "categories": [{"id": 1}]}, r"categories\[0\]"),
    ({"images": [ONE], "annotations": [], "categories": [{"id": 1, "name": "a"}] * 2}, r"category id 1 is there twice"),
    ({"images": [ONE], "annotations": [], "categories": None}, r"'categories' is missing"),
    ({"images": [ONE], "annotations": 5, "categories": []}, r"'annotations' is 5, not a list"),
    ({"images": {}, "annotations": [], "categories": []}, r"'images' is \{\}, not a list"),
    ([], r"is json, but no COCO dataset"),
    (coco([], [], {3: "cat"}), r"is empty: it has no image"),
]


@pytest.mark.parametrize(("content", "sentence"), REFUSED)
def test_what_cannot_be_used_is_refused_with_file_and_id(tmp_path: Path, content: Any, sentence: str) -> None:
    path = tmp_path / "train.json"
    path.write_text(json.dumps(content))
    write_image(tmp_path / "1.png")
    with pytest.raises(ToodError, match=sentence) as caught:
        load_dataset(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [b"", b'{"images": [', b"\xff\xfe\0", b"[" * 100_000, b'{"images": [1,]}'])
def test_broken_json_tells_the_file(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "train.json"
    path.write_bytes(content)
    with pytest.raises(ToodError, match=r"train\.json"):
        load_dataset(path)


def test_broken_json_tells_line_and_column(tmp_path: Path) -> None:
    path = tmp_path / "train.json"
    path.write_text('{\n"images": [],\n"annotations": oh\n}')
    with pytest.raises(ToodError, match="line 3 column 16"):
        load_dataset(path)


def test_missing_image_file(tmp_path: Path) -> None:
    write_coco_folder(tmp_path, usual_coco())
    (tmp_path / "train2017" / "7.png").unlink()
    with pytest.raises(ToodError, match=r"image 7: image file '7\.png' is not in"):
        load_dataset(tmp_path, "train")
    assert len(load_dataset(tmp_path, "train", images_required=False)) == 3


def test_nothing_there(tmp_path: Path) -> None:
    with pytest.raises(ToodError, match="no such dataset"):
        load_dataset(tmp_path / "nowhere")
    with pytest.raises(ToodError, match="is no dataset that is known"):
        load_dataset(tmp_path)
    write_coco_folder(tmp_path, usual_coco())
    with pytest.raises(ToodError, match="no split 'val'; it has train"):
        load_dataset(tmp_path, "val")


def test_what_write_coco_writes_is_read_back(tmp_path: Path) -> None:
    write_coco_folder(tmp_path, usual_coco())
    before = load_dataset(tmp_path, "train")
    write_coco(tmp_path / "annotations" / "instances_train2017.json", before.categories, before.images)
    assert_same(before, load_dataset(tmp_path, "train"))


def test_splits_of_different_classes_are_told_apart(tmp_path: Path) -> None:
    write_coco_folder(tmp_path, usual_coco())
    write_coco_folder(tmp_path, coco([image_row(1)], [box_row(1, 1)], {3: "dog"}), "val")
    with pytest.raises(ToodError, match=r"only in train: \['cat', 'tooth brush'\]; only in val: \['dog'\]"):
        require_same_categories(load_dataset(tmp_path, "train"), load_dataset(tmp_path, "val"))


def assert_same(one: DetectionDataset, two: DetectionDataset, atol: float = 1e-3) -> None:
    """The same images with the same annotations."""
    assert one.categories == two.categories
    assert [(i.id, i.width, i.height, i.name) for i in one.images] == [
        (i.id, i.width, i.height, i.name) for i in two.images
    ]
    for first, second in zip(one.images, two.images, strict=True):
        np.testing.assert_allclose(first.boxes, second.boxes, atol=atol)
        np.testing.assert_allclose(first.areas, second.areas, atol=atol)
        for key in ("labels", "crowd", "annotation_ids"):
            np.testing.assert_array_equal(getattr(first, key), getattr(second, key))


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.integers(0, 4),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


def mutated(draw: st.DrawFn, value: Any) -> Any:
    """A json value with something in it replaced or taken away."""
    if draw(st.integers(0, 5)) == 0 or not isinstance(value, dict | list) or not value:
        return draw(ANYTHING)
    key = draw(st.sampled_from(sorted(value) if isinstance(value, dict) else range(len(value))))
    copy = value.copy()
    if draw(st.integers(0, 7)) == 0:
        del copy[key]
    else:
        copy[key] = mutated(draw, copy[key])
    return copy


@st.composite
def broken_coco(draw: st.DrawFn) -> Any:
    content: Any = coco(
        [image_row(1), image_row(2)], [box_row(1, 1), box_row(2, 2, iscrowd=1, area=3.5)], {3: "cat", 4: "dog"}
    )
    for _ in range(draw(st.integers(1, 3))):
        content = mutated(draw, content)
    return content


@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(content=broken_coco())
def test_malformed_json_gives_a_dataset_or_a_sentence(tmp_path: Path, content: Any) -> None:
    path = tmp_path / "train.json"
    path.write_text(json.dumps(content))
    try:
        dataset = load_dataset(path, images_required=False)
    except ToodError:
        return
    for image in dataset.images:
        assert np.isfinite(image.boxes).all()
        assert (image.boxes[:, 2:] > image.boxes[:, :2]).all()
        assert (image.boxes >= 0).all()
        assert (image.boxes[:, 2:] <= [image.width, image.height]).all()
        assert (image.labels < len(dataset.categories)).all()


@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(cut=st.integers(0, 600), junk=st.binary(max_size=4))
def test_cut_json_gives_a_dataset_or_a_sentence(tmp_path: Path, cut: int, junk: bytes) -> None:
    path = tmp_path / "train.json"
    path.write_bytes(json.dumps(usual_coco()).encode()[:cut] + junk)
    with contextlib.suppress(ToodError):
        assert len(load_dataset(path, images_required=False)) == 3


def test_real_coco(real_data: Path) -> None:
    counts = {}
    for split in ("train", "val"):
        dataset = load_dataset(real_data / "coco128", split)
        raw = json.loads((real_data / "coco128" / "annotations" / f"instances_{split}2017.json").read_text())
        assert dataset.box_count == len(raw["annotations"])
        assert [c.id for c in dataset.categories] == [c["id"] for c in raw["categories"]]
        assert dataset.problems == ()
        counts[split] = sum(int(image.crowd.sum()) for image in dataset.images)
    assert counts == {"train": 6, "val": 5}
    picked = pick_splits(real_data / "coco128")
    assert (picked.train, picked.val, picked.test, picked.evaluation) == ("train", "val", None, "val")


def test_the_folder_may_move(tmp_path: Path) -> None:
    write_coco_folder(tmp_path / "a", usual_coco())
    shutil.move(tmp_path / "a", tmp_path / "b")
    assert load_dataset(tmp_path / "b", "train").images[0].path.is_file()
