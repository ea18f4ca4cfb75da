"""Converting keeps what the new format can hold, tells what it cannot, and leaves nothing half-written."""

from __future__ import annotations

import shutil
import tempfile
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
    usual_coco,
    voc_xml,
    write_coco_folder,
    write_image,
    write_voc_folder,
)
from tood.cli.data import app
from tood.data import Category, DetectionDataset, ImageRecord, ImageTransfer, convert_dataset, load_dataset, write_coco
from tood.errors import ToodError


def by_name(dataset: DetectionDataset) -> dict[str, ImageRecord]:
    """Images by their names without suffix and folders."""
    return {Path(image.name).stem: image for image in dataset.images}


def rows(image: ImageRecord, names: tuple[str, ...], crowd: bool = True) -> list[tuple[object, ...]]:
    """Its boxes as sorted rows: name, crowd, corners to a thousandth of a pixel."""
    listed = zip(image.boxes.tolist(), image.labels.tolist(), image.crowd.tolist(), strict=True)
    return sorted(
        (names[label], flag, *(round(value, 2) for value in box)) for box, label, flag in listed if crowd or not flag
    )


def test_coco_to_yolo_and_back(tmp_path: Path) -> None:
    write_coco_folder(tmp_path / "coco", usual_coco())
    report = convert_dataset(tmp_path / "coco", tmp_path / "yolo", "yolo")
    assert (report.images, report.boxes) == ({"train": 3}, {"train": 2})
    assert any("1 crowd boxes left out" in sentence for sentence in report.lost)
    assert any("category ids (3 to 90)" in sentence for sentence in report.lost)
    assert (tmp_path / "yolo" / "labels" / "train" / "sub" / "a.txt").read_text() == ""
    convert_dataset(tmp_path / "yolo", tmp_path / "again", "coco")
    before, after = load_dataset(tmp_path / "coco", "train"), load_dataset(tmp_path / "again", "train")
    assert before.class_names == after.class_names
    for name, image in by_name(before).items():
        assert rows(image, before.class_names, crowd=False) == rows(by_name(after)[name], after.class_names)
    assert by_name(after)["a"].path.read_bytes() == by_name(before)["a"].path.read_bytes()


def test_coco_to_coco_keeps_everything_but_masks(tmp_path: Path) -> None:
    write_coco_folder(tmp_path / "coco", usual_coco())
    write_image(tmp_path / "coco" / "test2017" / "9.png")
    report = convert_dataset(tmp_path / "coco", tmp_path / "out", "coco", transfer=ImageTransfer.COPY)
    assert report.images == {"train": 3, "test": 1}
    before, after = load_dataset(tmp_path / "coco", "train"), load_dataset(tmp_path / "out", "train")
    assert before.categories == after.categories
    for one, two in zip(before.images, after.images, strict=True):
        assert (one.id, one.name) == (two.id, two.name)
        np.testing.assert_allclose(one.areas, two.areas)
        np.testing.assert_array_equal(one.annotation_ids, two.annotation_ids)
        assert rows(one, before.class_names) == rows(two, after.class_names)
    assert not load_dataset(tmp_path / "out", "test").annotated


def test_voc_lists_and_difficult_survive(tmp_path: Path) -> None:
    xmls = {name: voc_xml(name, [("dog", (1, 1, 9, 9), 1), ("ant", (2, 3, 40, 48), 0)]) for name in "abc"}
    splits = {"train": ["a"], "val": ["b"], "trainval": ["a", "b"], "test": ["c"]}
    write_voc_folder(tmp_path / "voc", xmls, splits)
    convert_dataset(tmp_path / "voc", tmp_path / "again", "voc")
    for split in splits:
        one, two = load_dataset(tmp_path / "voc", split), load_dataset(tmp_path / "again", split)
        assert [rows(image, one.class_names) for image in one.images] == [
            rows(image, two.class_names) for image in two.images
        ]
    report = convert_dataset(tmp_path / "voc", tmp_path / "coco", "coco")
    assert list(report.images) == ["train", "val", "test"]
    assert any("trainval is left out" in sentence for sentence in report.lost)
    only = convert_dataset(tmp_path / "voc", tmp_path / "yolo", "yolo", splits=["trainval"])
    assert only.images == {"trainval": 2}


def test_equal_names_are_kept_apart(tmp_path: Path) -> None:
    names = ["x/a.png", "y/a.png", "y/a.jpg", "y_a.png"]
    images = [image_row(number, name) for number, name in enumerate(names, start=1)]
    boxes = [box_row(number, number, (number, 1, 10, 10)) for number in range(1, 5)]
    write_coco_folder(tmp_path / "coco", coco(images, boxes, {3: "cat"}))
    write_coco_folder(tmp_path / "coco", coco(images, boxes, {3: "cat"}), "val")
    for kind in ("voc", "yolo", "coco"):
        report = convert_dataset(tmp_path / "coco", tmp_path / "out" / kind, kind)
        assert report.boxes == {"train": 4, "val": 4}
        for split in ("train", "val"):
            dataset = load_dataset(tmp_path / "out" / kind, split)
            assert sorted(float(image.boxes[0, 0]) for image in dataset.images) == [1, 2, 3, 4]


def test_names_never_lead_out_of_the_folder(tmp_path: Path) -> None:
    outside = write_image(tmp_path / "outside.png")
    images = [image_row(1, "../../outside.png"), image_row(2, str(outside))]
    path = write_coco_folder(tmp_path / "d", coco(images, [box_row(1, 1)], {3: "cat"}), images=False)
    (tmp_path / "d" / "train2017").mkdir()
    assert path.is_file()
    before = outside.read_bytes()
    for kind in ("coco", "yolo", "voc"):
        convert_dataset(tmp_path / "d", tmp_path / "out" / kind, kind, transfer=ImageTransfer.COPY)
        for image in load_dataset(tmp_path / "out" / kind, "train").images:
            assert (tmp_path / "out" / kind) in image.path.resolve().parents
    assert outside.read_bytes() == before


@pytest.mark.parametrize("transfer", list(ImageTransfer))
def test_ways_to_transfer_images(tmp_path: Path, transfer: ImageTransfer) -> None:
    write_coco_folder(tmp_path / "coco", usual_coco())
    convert_dataset(tmp_path / "coco", tmp_path / "out", "coco", transfer=transfer)
    new, old = tmp_path / "out" / "train" / "7.png", tmp_path / "coco" / "train2017" / "7.png"
    assert new.samefile(old) == (transfer is not ImageTransfer.COPY)
    assert new.is_symlink() == (transfer is ImageTransfer.SYMLINK)
    assert new.read_bytes() == old.read_bytes()


def test_out_is_not_taken_lightly(tmp_path: Path) -> None:
    write_coco_folder(tmp_path / "coco", usual_coco())
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").touch()
    for overwrite, sentence in ((False, "is not empty"), (True, "holds something that is no dataset")):
        with pytest.raises(ToodError, match=sentence):
            convert_dataset(tmp_path / "coco", tmp_path / "mine", "yolo", overwrite=overwrite)
    for place in (tmp_path / "coco", tmp_path, tmp_path / "coco" / "x", Path.cwd()):
        with pytest.raises(ToodError, match=r"name another|name a folder outside"):
            convert_dataset(tmp_path / "coco", place, "yolo", overwrite=True)
    with pytest.raises(ToodError, match="there is no dataset format 'xml'"):
        convert_dataset(tmp_path / "coco", tmp_path / "out", "xml")
    convert_dataset(tmp_path / "coco", tmp_path / "out", "yolo")
    convert_dataset(tmp_path / "coco", tmp_path / "out", "voc", overwrite=True)
    assert load_dataset(tmp_path / "out", "train").format == "voc"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["coco", "mine", "out"]


def test_a_failure_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_coco_folder(tmp_path / "coco", usual_coco())
    convert_dataset(tmp_path / "coco", tmp_path / "out", "yolo")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(shutil, "copyfile", full)
    for place, overwrite in ((tmp_path / "new", False), (tmp_path / "out", True)):
        with pytest.raises(ToodError, match="No space left on device"):
            convert_dataset(tmp_path / "coco", place, "voc", transfer=ImageTransfer.COPY, overwrite=overwrite)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["coco", "out"]
    assert load_dataset(tmp_path / "out", "train").format == "yolo"


def test_command(tmp_path: Path) -> None:
    write_coco_folder(tmp_path / "coco", usual_coco())
    args = [
        "convert",
        str(tmp_path / "coco"),
        str(tmp_path / "out"),
        "--to",
        "yolo",
        "--images",
        "copy",
        "--split",
        "train2017",
    ]
    result = CliRunner().invoke(app, args)
    assert result.exit_code == 0, result.output
    assert "train: 3 images, 2 boxes" in result.output
    assert "crowd boxes left out" in result.output


SIDE = 40
coordinates = st.floats(0, SIDE, width=32, allow_subnormal=False)


@st.composite
def boxes_in_image(draw: st.DrawFn) -> tuple[float, float, float, float]:
    x1, y1 = draw(st.floats(0, SIDE - 2, width=32)), draw(st.floats(0, SIDE - 2, width=32))
    x2, y2 = draw(st.floats(x1 + 1.01, SIDE)), draw(st.floats(y1 + 1.01, SIDE))
    return x1, y1, x2, y2


NAME = st.text("abcé<&\"' ö0", min_size=1, max_size=6).map(str.strip).filter(bool)


@st.composite
def datasets(draw: st.DrawFn) -> tuple[list[Category], list[ImageRecord]]:
    names = draw(st.lists(NAME, min_size=1, max_size=4, unique=True))
    ids = sorted(draw(st.sets(st.integers(0, 10**6), min_size=len(names), max_size=len(names))))
    images = []
    next_id = 1
    for number in sorted(draw(st.sets(st.integers(0, 10**12), min_size=1, max_size=4))):
        objects = draw(st.lists(st.tuples(boxes_in_image(), st.integers(0, len(names) - 1), st.booleans()), max_size=5))
        boxes = np.array([box for box, _, _ in objects], np.float32).reshape(-1, 4)
        images.append(
            ImageRecord(
                number,
                Path(f"{number}.png"),
                SIDE,
                SIDE,
                boxes,
                np.array([label for _, label, _ in objects], np.int64).reshape(-1),
                np.array([crowd for _, _, crowd in objects], np.bool_).reshape(-1),
                np.full(len(objects), 7.5),
                np.arange(next_id, next_id + len(objects)),
            )
        )
        next_id += len(objects)
    return [Category(number, name) for number, name in zip(ids, names, strict=True)], images


@settings(max_examples=40)
@given(
    data=datasets(),
    way=st.sampled_from([("coco",), ("yolo",), ("voc",), ("voc", "coco"), ("coco", "voc"), ("yolo", "voc")]),
)
def test_random_datasets_survive_conversion(
    data: tuple[list[Category], list[ImageRecord]], way: tuple[str, ...]
) -> None:
    categories, images = data
    if "yolo" in way and not any((~image.crowd).any() for image in images):
        way = ("coco",)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_coco(folder / "0" / "annotations" / "instances_train.json", categories, images)
        for image in images:
            write_image(folder / "0" / "train" / image.name, SIDE, SIDE)
        for step, kind in enumerate(way, start=1):
            convert_dataset(folder / str(step - 1), folder / str(step), kind)
        after = load_dataset(folder / str(len(way)), "train")
    assert after.problems == ()
    names = tuple(category.name for category in categories)
    found = by_name(after)
    assert found.keys() == {str(image.id) for image in images}
    for image in images:
        other = found[str(image.id)]
        kept = image.select(~image.crowd) if "yolo" in way else image
        order = np.lexsort(np.round(kept.boxes, 1).T)
        assert len(kept.boxes) == len(other.boxes)
        assert [names[label] for label in kept.labels] == [after.class_names[label] for label in other.labels]
        np.testing.assert_array_equal(kept.crowd, other.crowd)
        np.testing.assert_allclose(kept.boxes[order], other.boxes[order], atol=1e-3)
        if way == ("coco",):
            assert after.categories == tuple(categories)
            np.testing.assert_array_equal(image.areas, other.areas)


def test_real_data_there_and_back(real_data: Path, tmp_path: Path) -> None:
    convert_dataset(real_data / "bccd", tmp_path / "coco", "coco", splits=["test"], transfer=ImageTransfer.SYMLINK)
    convert_dataset(tmp_path / "coco", tmp_path / "yolo", "yolo", transfer=ImageTransfer.SYMLINK)
    convert_dataset(tmp_path / "yolo", tmp_path / "voc", "voc", transfer=ImageTransfer.SYMLINK)
    one, two = load_dataset(real_data / "bccd", "test"), load_dataset(tmp_path / "voc", "test")
    assert one.class_names == two.class_names
    for first, second in zip(one.images, two.images, strict=True):
        np.testing.assert_allclose(first.boxes, second.boxes, atol=1e-3)
        np.testing.assert_array_equal(first.labels, second.labels)


@pytest.mark.parametrize("to", ["coco", "yolo", "voc"])
def test_a_truncated_picture_is_left_out_and_told_of(tmp_path: Path, to: str) -> None:
    write_coco_folder(tmp_path / "coco", usual_coco())
    cut = tmp_path / "coco" / "train2017" / "7.png"
    cut.write_bytes(cut.read_bytes()[:-300])
    report = convert_dataset(tmp_path / "coco", tmp_path / "out", to)
    assert report.images == {"train": 2}
    assert [image.id for image in load_dataset(tmp_path / "out").images if image.name == "7.png"] == []
    told = [sentence for sentence in report.lost if "cannot be read, 1 picture" in sentence]
    assert len(told) == 1
    assert str(cut) in told[0]


def test_a_file_that_is_no_picture_is_never_copied(tmp_path: Path) -> None:
    secret = tmp_path / "secret.txt"
    secret.write_text("not for others")
    images = [image_row(1), image_row(2, "../../secret.txt")]
    write_coco_folder(tmp_path / "coco", coco(images, [box_row(1, 1)], {3: "cat"}), images=False)
    write_image(tmp_path / "coco" / "train2017" / "1.png")
    with pytest.raises(ToodError, match=r"secret\.txt.*nothing is written"):
        convert_dataset(tmp_path / "coco", tmp_path / "out", "yolo")
    assert not (tmp_path / "out").exists()


def test_pictures_of_other_folders_are_told_of(tmp_path: Path) -> None:
    write_image(tmp_path / "elsewhere" / "a.png")
    images = [image_row(1), image_row(2, "../../elsewhere/a.png")]
    write_coco_folder(tmp_path / "coco", coco(images, [box_row(1, 1)], {3: "cat"}), images=False)
    write_image(tmp_path / "coco" / "train2017" / "1.png")
    report = convert_dataset(tmp_path / "coco", tmp_path / "out", "coco")
    assert (tmp_path / "out" / "train" / "a.png").is_file()
    assert any("1 image files lie outside their folder" in sentence for sentence in report.lost)
