"""COCO's figures against pycocotools, and what becomes of wrong input."""

from __future__ import annotations

import contextlib
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from tood.data import Category, DetectionDataset, ImageRecord
from tood.errors import ToodError
from tood.evaluation import CocoResult, DetectionTable, GroundTruth, evaluate_detections


def reference_figures(truth: dict[str, Any], detections: list[dict[str, Any]]) -> tuple[np.ndarray, COCOeval]:
    with contextlib.redirect_stdout(io.StringIO()):
        annotated = COCO()
        annotated.dataset = json.loads(json.dumps(truth))
        annotated.createIndex()
        if detections:
            found = annotated.loadRes(json.loads(json.dumps(detections)))
        else:  # pycocotools cannot load an empty list
            found = COCO()
            found.dataset = {"images": truth["images"], "categories": truth["categories"], "annotations": []}
            found.createIndex()
        evaluation = COCOeval(annotated, found, "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return evaluation.stats, evaluation


def random_case(
    seed: int, images: int = 6, classes: int = 3, most: int = 12
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Annotations with crowds, empty images and a class of no object; detections that jitter, repeat, miss, invent."""
    rng = np.random.default_rng(seed)
    categories = [{"id": 3 + 7 * k, "name": f"class {k}"} for k in range(classes)]
    truth: dict[str, Any] = {"categories": categories, "annotations": []}
    truth["images"] = [{"id": 10 * i + 5, "width": 400, "height": 300, "file_name": f"{i}.jpg"} for i in range(images)]
    detections = []
    for image in truth["images"]:
        for _ in range(rng.integers(0, most)):
            x, y, side = *rng.uniform(0, 250, 2), rng.choice([10.0, 40.0, 140.0])
            box = [x, y, side, side * rng.uniform(0.5, 1.5)]
            category = categories[rng.integers(0, max(1, classes - 1))]["id"]
            truth["annotations"].append(
                {
                    "id": len(truth["annotations"]) + 1,
                    "image_id": image["id"],
                    "category_id": category,
                    "bbox": box,
                    "area": box[2] * box[3] * rng.uniform(0.4, 1.0),
                    "iscrowd": int(rng.random() < 0.15),
                }
            )
            for _ in range(rng.integers(0, 4)):
                moved = np.array(box) + rng.normal(0, 0.08 * side, 4)
                moved[2:] = np.maximum(moved[2:], 1)
                detections.append((image["id"], category, moved.tolist(), round(rng.random(), 1)))
        for _ in range(rng.integers(0, 130) if rng.random() < 0.2 else 2):
            detections.append((image["id"], categories[-1]["id"], [*rng.uniform(0, 200, 4)], rng.random()))
    keys = ("image_id", "category_id", "bbox", "score")
    return truth, [dict(zip(keys, row, strict=True)) for row in detections]


def write(folder: Path, name: str, content: Any) -> Path:
    path = folder / name
    path.write_text(json.dumps(content))
    return path


@settings(max_examples=40)
@given(seed=st.integers(0, 100_000))
def test_figures_are_those_of_pycocotools(seed: int, tmp_path_factory: pytest.TempPathFactory) -> None:
    truth, detections = random_case(seed)
    folder = tmp_path_factory.mktemp("coco")
    result = evaluate_detections(write(folder, "d.json", detections), write(folder, "t.json", truth))
    wanted, evaluation = reference_figures(truth, detections)
    np.testing.assert_allclose(list(result.figures.values()), wanted, rtol=0, atol=1e-6)
    for k, name in enumerate(result.per_class):
        precision = evaluation.eval["precision"][:, :, k, 0, -1]
        ap = precision[precision > -1].mean() if (precision > -1).any() else -1
        assert result.per_class[name] == pytest.approx(ap, abs=1e-6)
    assert result.images == 6
    assert result.objects == sum(not a["iscrowd"] for a in truth["annotations"])
    assert result.detections == len(detections)


def test_figures_are_those_of_pycocotools_on_real_annotations(real_data: Path) -> None:
    path = real_data / "coco128" / "annotations" / "instances_val2017.json"
    truth = json.loads(path.read_text())
    rng = np.random.default_rng(1)
    detections = []
    for annotation in truth["annotations"]:
        box = np.array(annotation["bbox"]) + rng.normal(0, 0.05, 4) * max(annotation["bbox"][2:])
        detections.append((annotation["image_id"], annotation["category_id"], box, rng.uniform(0.3, 1)))
    for image in truth["images"]:
        for category in rng.choice(truth["categories"], 20):
            detections.append((image["id"], category["id"], rng.uniform(0, 200, 4), rng.uniform(0, 0.6)))
    table = DetectionTable(
        np.array([d[0] for d in detections]),
        np.array([d[1] for d in detections]),
        np.array([d[2] for d in detections]),
        np.array([d[3] for d in detections]),
    )
    keys = ("image_id", "category_id", "bbox", "score")
    rows = [dict(zip(keys, (int(i), int(c), b.tolist(), float(s)), strict=True)) for i, c, b, s in detections]
    wanted, _ = reference_figures(truth, rows)
    result = evaluate_detections(table, path)
    np.testing.assert_allclose(list(result.figures.values()), wanted, rtol=0, atol=1e-6)
    assert 0.3 < result.ap < 0.95


def test_nothing_found_is_zero_and_nothing_to_find_is_minus_one() -> None:
    truth, _ = random_case(3)
    result = evaluate(truth, DetectionTable.empty())
    assert result.ap == 0
    assert result.per_class["class 2"] == -1
    assert result.detections == 0
    nothing = evaluate({**truth, "annotations": []}, DetectionTable.empty())
    assert set(nothing.figures.values()) == {-1.0}


def evaluate(truth: dict[str, Any], table: DetectionTable) -> CocoResult:
    from tood.evaluation.ground_truth import _from_content

    return evaluate_detections(table, _from_content(truth, "made up"))


def dataset_of(truth: dict[str, Any], format: str = "yolo", source: Path | None = None) -> DetectionDataset:
    ids = [category["id"] for category in truth["categories"]]
    records = []
    for image in truth["images"]:
        own = [a for a in truth["annotations"] if a["image_id"] == image["id"]]
        boxes = np.array([a["bbox"] for a in own], np.float32).reshape(-1, 4)
        records.append(
            ImageRecord(
                image["id"],
                Path(image["file_name"]),
                image["width"],
                image["height"],
                np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], 1),
                np.array([ids.index(a["category_id"]) for a in own], np.int64),
                np.array([a["iscrowd"] for a in own], np.bool_),
                np.array([a["area"] for a in own], np.float64),
                np.array([a["id"] for a in own], np.int64),
            )
        )
    categories = tuple(Category(c["id"], c["name"]) for c in truth["categories"])
    return DetectionDataset(Path("made-up"), "val", format, categories, tuple(records), source=source)


def table_of(detections: list[dict[str, Any]]) -> DetectionTable:
    return DetectionTable(
        np.array([d["image_id"] for d in detections], np.int64),
        np.array([d["category_id"] for d in detections], np.int64),
        np.array([d["bbox"] for d in detections]).reshape(-1, 4),
        np.array([d["score"] for d in detections]),
    )


def test_a_dataset_in_memory_measures_as_its_json() -> None:
    truth, detections = random_case(8)
    result = evaluate_detections(table_of(detections), dataset_of(truth))
    wanted, _ = reference_figures(truth, detections)
    np.testing.assert_allclose(list(result.figures.values()), wanted, rtol=0, atol=1e-6)


def test_a_coco_folder_is_measured_by_the_boxes_of_its_file_and_the_images_of_the_dataset(tmp_path: Path) -> None:
    truth, detections = random_case(8)
    truth["annotations"][0]["bbox"] = [-50, -50, 300, 300]  # loading would clip it
    source = write(tmp_path, "instances_val.json", truth)
    dataset = dataset_of(truth, "coco", source)
    assert evaluate_detections(table_of(detections), dataset) == evaluate(truth, table_of(detections))
    kept = dataset.images[:2]
    part = DetectionDataset(dataset.root, "val", "coco", dataset.categories, kept, source=source)
    ids = {image.id for image in kept}
    ours = [d for d in detections if d["image_id"] in ids]
    result = evaluate_detections(table_of(ours), part)
    wanted, _ = reference_figures({**truth, "images": truth["images"][:2]}, ours)
    np.testing.assert_allclose(list(result.figures.values()), wanted, rtol=0, atol=1e-6)


def test_an_area_that_is_not_given_is_the_box_s() -> None:
    truth, _ = random_case(8)
    for annotation in truth["annotations"]:
        del annotation["area"], annotation["iscrowd"]
    from tood.evaluation.ground_truth import _from_content

    ground_truth = _from_content(truth, "made up")
    np.testing.assert_allclose(ground_truth.areas, ground_truth.boxes[:, 2] * ground_truth.boxes[:, 3])
    assert not ground_truth.crowd.any()


def test_classes_of_one_name_are_told_apart_by_id() -> None:
    truth, detections = random_case(4)
    truth["categories"][0]["name"] = truth["categories"][1]["name"] = "cat"
    result = evaluate(truth, table_of(detections))
    assert list(result.per_class) == ["cat (3)", "cat (10)", "class 2"]


GOOD = {"image_id": 5, "category_id": 3, "bbox": [1, 2, 3, 4], "score": 0.5}


def without(entry: dict[str, Any], key: str) -> dict[str, Any]:
    return {name: value for name, value in entry.items() if name != key}


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("{", "not valid json"),
        ('{"a": 1}', "no list of detections"),
        ("[1]", "detection 0: expected an object"),
        (json.dumps([GOOD, {**GOOD, "image_id": "5"}]), "detection 1: image_id"),
        (json.dumps([{**GOOD, "category_id": True}]), "category_id"),
        (json.dumps([{**GOOD, "bbox": [1, 2, 3]}]), "bbox must be four numbers"),
        (json.dumps([{**GOOD, "bbox": [1, 2, 3, float("nan")]}]), "bbox must be four numbers"),
        (json.dumps([{**GOOD, "bbox": [1, 2, 3, 10**400]}]), "bbox must be four numbers"),
        (json.dumps([{**GOOD, "score": None}]), "score must be a number"),
        (json.dumps([GOOD, without(GOOD, "score")]), "detection 1: score must be a number"),
        (json.dumps([GOOD, {**without(GOOD, "bbox"), "image_id": 5}]), "detection 1: bbox must be four numbers"),
        (json.dumps([{**without(GOOD, "bbox"), "segmentation": [[1, 2, 3, 4, 5, 6]]}]), "bbox must be four numbers"),
        (json.dumps([{**GOOD, "bbox": [1, 2, 3, 1e301]}]), "bbox must be four numbers"),
        (json.dumps([{**GOOD, "image_id": 5.5}]), "image_id must be a whole number"),
        (json.dumps([{**GOOD, "image_id": 6}]), "image_id that the annotations .* lack"),
        (json.dumps([{**GOOD, "category_id": 0}]), "category_id that the annotations .* lack"),
        ("\x80", "not valid json"),
    ],
)
def test_wrong_detections_are_one_sentence(tmp_path: Path, content: str, sentence: str) -> None:
    path = tmp_path / "d.json"
    path.write_text(content, encoding="latin-1")
    truth, _ = random_case(1)
    with pytest.raises(ToodError, match=sentence) as error:
        evaluate_detections(path, write(tmp_path, "t.json", truth))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("content", ["{", "[]", "{}", '{"images": [{}], "categories": []}', "7"])
def test_wrong_annotations_are_one_sentence(tmp_path: Path, content: str) -> None:
    path = tmp_path / "t.json"
    path.write_text(content)
    with pytest.raises(ToodError, match=r"t\.json"):
        GroundTruth.from_json(path)


def test_keys_that_do_not_matter_and_the_way_numbers_are_written_change_nothing(tmp_path: Path) -> None:
    truth, detections = random_case(8)
    annotations = write(tmp_path, "t.json", truth)
    wanted = evaluate_detections(write(tmp_path, "d.json", detections), annotations)
    more = [{"id": 1, **d, "area": -7, "iscrowd": 1, "ignore": 1, "file_name": "n"} for d in detections]
    assert evaluate_detections(write(tmp_path, "more.json", more), annotations) == wanted
    whole = [{**d, "image_id": float(d["image_id"])} for d in detections]
    assert evaluate_detections(write(tmp_path, "whole.json", whole), annotations) == wanted
    assert evaluate_detections(write(tmp_path, "both.json", [*more[:1], *whole[1:]]), annotations) == wanted
    (tmp_path / "lines.json").write_text(json.dumps(detections[::-1], indent=2))
    assert evaluate_detections(tmp_path / "lines.json", annotations).detections == wanted.detections
    assert evaluate_detections(write(tmp_path, "none.json", []), annotations).ap == 0


def test_missing_files_are_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(ToodError, match="no annotations file"):
        GroundTruth.from_json(tmp_path / "t.json")
    with pytest.raises(ToodError, match="no detections file"):
        DetectionTable.read(tmp_path / "d.json")
    with pytest.raises(ToodError, match="cannot be read"):
        DetectionTable.read(tmp_path)


def test_what_is_written_is_what_was_measured(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    corners = rng.uniform(0, 100, (20, 4)).astype(np.float32)
    table = DetectionTable.from_corners(
        np.arange(20), np.full(20, 3), np.sort(corners.reshape(20, 2, 2), 1).reshape(20, 4), rng.random(20)
    )
    table.save(tmp_path / "new" / "d.json")
    again = DetectionTable.read(tmp_path / "new" / "d.json")
    for name in ("image_ids", "category_ids", "boxes", "scores"):
        np.testing.assert_array_equal(getattr(again, name), getattr(table, name))
    first = json.loads((tmp_path / "new" / "d.json").read_text())[0]
    assert set(first) == {"image_id", "category_id", "bbox", "score"}
    assert [file.name for file in (tmp_path / "new").iterdir()] == ["d.json"]
