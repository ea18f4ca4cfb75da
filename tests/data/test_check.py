"""`check_dataset` and `tood data check | list` report what is there, and nothing that is not."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import typer
from PIL import Image
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
from tood.data import check_dataset
from tood.errors import ToodError

runner = CliRunner()


def test_a_sound_dataset_has_notes_alone(tmp_path: Path) -> None:
    write_coco_folder(tmp_path, usual_coco())
    write_image(tmp_path / "train2017" / "7.png", grey=True)
    seen: list[tuple[int, int]] = []
    report = check_dataset(tmp_path, "train", progress=lambda done, total: seen.append((done, total)))
    assert report.ok
    assert seen[-1] == (3, 3)
    assert (report.images, report.boxes, report.crowds, report.empty, report.grey) == (3, 3, 1, 1, 1)
    assert report.boxes_per_class == (("cat", 1), ("tooth brush", 2))
    assert (report.smallest, report.largest) == ((64, 48), (80, 60))
    told = {(problem.kind, problem.image_id, problem.annotation_id) for problem in report.problems}
    assert told == {("grey", 7, None), ("empty", 3, None), ("crowd", 900_000_000_012, 5)}
    assert {problem.severity for problem in report.problems} == {"note"}


def test_every_problem_is_listed_not_the_first_alone(tmp_path: Path) -> None:
    images = [image_row(number) for number in range(1, 8)]
    boxes = [
        box_row(1, 1, category=9),
        box_row(2, 1),
        box_row(2, 2),
        box_row(3, 3, (60, 1, 30, 5)),
        box_row(4, 3, (1, 1, 0, 5)),
        box_row(5, 77),
        box_row(6, 3, ("x", 1, 0, 5)),
        box_row(7, 7),
        box_row(8, 7),
    ]
    write_coco_folder(tmp_path, coco([*images, images[0]], boxes, {3: "cat"}))
    folder = tmp_path / "train2017"
    (folder / "1.png").unlink()
    (folder / "2.png").write_bytes((folder / "2.png").read_bytes()[:500])
    (folder / "3.png").write_bytes(b"")
    write_image(folder / "4.png", 48, 64)
    (folder / "5.png").write_text("no image")
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 48, 3), dtype=np.uint8)).save(
        folder / "6.png", exif=exif
    )
    report = check_dataset(tmp_path, "train")
    assert not report.ok
    told = sorted(
        (problem.severity, problem.kind, problem.image_id, problem.annotation_id or 0) for problem in report.problems
    )
    assert told == sorted(
        [
            ("error", "duplicate_image_id", 1, 0),
            ("error", "unknown_category", 1, 1),
            ("error", "duplicate_annotation_id", 2, 2),
            ("error", "wrong_type", 3, 6),
            ("error", "image_missing", 1, 0),
            ("error", "image_unreadable", 2, 0),
            ("error", "image_unreadable", 3, 0),
            ("error", "image_unreadable", 5, 0),
            ("error", "size_differs", 4, 0),
            ("warning", "unknown_image", 77, 5),
            ("warning", "box_clipped", 3, 3),
            ("warning", "box_dropped", 3, 4),
            ("note", "exif_orientation", 6, 0),
            ("note", "duplicate_box", 7, 8),
            ("note", "empty", 4, 0),
            ("note", "empty", 5, 0),
            ("note", "empty", 6, 0),
        ]
    )
    assert any("made on the turned picture" in problem.message for problem in report.problems if problem.image_id == 6)
    assert (report.unreadable, report.clipped, report.dropped) == (4, 1, 1)


def test_difficult_objects_are_noted(tmp_path: Path) -> None:
    write_voc_folder(tmp_path, {"a": voc_xml("a", [("dog", (1, 1, 9, 9), 1)])}, {"train": ["a"]})
    report = check_dataset(tmp_path)
    assert [problem.message for problem in report.problems] == [
        "dog box is difficult: ignored in training and evaluation"
    ]


def test_command_exit_codes_and_json(tmp_path: Path) -> None:
    write_coco_folder(tmp_path / "d", usual_coco())
    out = tmp_path / "r" / "report.json"
    result = runner.invoke(app, ["check", str(tmp_path / "d"), "--json", str(out)])
    assert result.exit_code == 0, result.output
    assert "train: 0 errors, 0 warnings, 2 notes" in result.output
    (report,) = json.loads(out.read_text())
    assert report["ok"]
    assert report["boxes"] == 3
    (tmp_path / "d" / "train2017" / "7.png").unlink()
    result = runner.invoke(app, ["check", str(tmp_path / "d"), "--split", "train", "--all"])
    assert result.exit_code == 1
    assert "image file '7.png' is not in" in result.output
    assert "train: 1 error, 0 warnings" in result.output


def test_unusable_input_raises_the_sentence_that_becomes_exit_code_2(tmp_path: Path) -> None:
    path = tmp_path / "train.json"
    path.write_text("{")
    result = runner.invoke(app, ["check", str(path)])
    assert isinstance(result.exception, ToodError)
    with pytest.raises(ToodError, match="is empty"):
        check_dataset(write_coco_folder(tmp_path, coco([], [], {3: "cat"})))


def test_list_shows_splits_and_their_use(tmp_path: Path) -> None:
    xmls = {name: voc_xml(name, [("dog", (1, 1, 9, 9), 0)]) for name in "abc"}
    write_voc_folder(tmp_path, xmls, {"train": ["a"], "val": ["b"], "trainval": ["a", "b"], "test": ["c"]})
    result = runner.invoke(app, ["list", str(tmp_path)])
    assert result.exit_code == 0, result.output
    assert "trained on: trainval, validated on: test" in result.output


def test_the_commands_are_a_typer_application() -> None:
    assert isinstance(app, typer.Typer)


def test_real_photographs_have_crowds_empty_and_grey_pictures_and_no_problem(real_data: Path) -> None:
    reports = [check_dataset(real_data / "coco128", split) for split in ("train", "val")]
    assert sum(report.crowds for report in reports) == 11
    assert [problem.image_id for report in reports for problem in report.problems if problem.kind == "empty"] == [
        250,
        508,
    ]
    # Counted apart with Pillow: pictures whose three channels are equal everywhere.
    grey = [problem.image_id for report in reports for problem in report.problems if problem.kind == "grey"]
    assert grey == [86, 328, 542, 634, 1425, 1490, 2299, 3156, 5503, 6460, 6614, 7888]
    assert {p.kind for report in reports for p in report.problems} == {"crowd", "empty", "grey"}


def test_real_blood_cells_have_two_boxes_of_no_area(real_data: Path) -> None:
    reports = [check_dataset(real_data / "bccd", split) for split in ("trainval", "test")]
    found = [problem for report in reports for problem in report.problems]
    assert [problem.kind for problem in found] == ["box_dropped"] * 2
    assert [Path(problem.file).name for problem in found] == ["BloodImage_00338.xml", "BloodImage_00343.xml"]


def test_warnings_do_not_hide_that_there_is_no_image(tmp_path: Path) -> None:
    (tmp_path / "annotations").mkdir()
    (tmp_path / "train").mkdir()
    lost = {"id": 0, "image_id": 1, "category_id": 3, "bbox": [0.0, 0.0, 1.0, 1.0], "area": 0.0, "iscrowd": 0}
    content = {"images": [], "annotations": [lost, lost | {"id": 1}], "categories": [{"id": 3, "name": "cat"}]}
    (tmp_path / "annotations/instances_train.json").write_text(json.dumps(content))
    with pytest.raises(ToodError, match="it has no image"):
        check_dataset(tmp_path, "train")
