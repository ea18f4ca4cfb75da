"""VOC's difficult objects are ignored by IoU, COCO's crowds by how much of a detection lies within them."""

from __future__ import annotations

import contextlib
import io
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from dataset_files import voc_xml, write_voc_folder
from tood.data import Category, DetectionDataset, ImageRecord, convert_dataset, load_dataset
from tood.evaluation import CocoResult, DetectionTable, GroundTruth, evaluate_detections


class HonouringIgnore(COCOeval):  # type: ignore[misc]
    """pycocotools' evaluation with `ignore` as annotated, which it overwrites by `iscrowd`."""

    def _prepare(self) -> None:
        super()._prepare()
        for listed in self._gts.values():
            for annotation in listed:
                annotation["ignore"] = annotation["told_to_ignore"]


def _table(rows: list[tuple[int, list[float], float, int]]) -> DetectionTable:
    """Rows are (image id, x y width height, score, category id)."""
    return DetectionTable(
        np.array([row[0] for row in rows], np.int64),
        np.array([row[3] for row in rows], np.int64),
        np.array([row[1] for row in rows], np.float64).reshape(-1, 4),
        np.array([row[2] for row in rows], np.float64),
    )


def _voc(tmp_path: Path) -> DetectionDataset:
    xml = voc_xml("a", [("dog", (1, 1, 10, 10), 0), ("dog", (21, 1, 60, 40), 1)])
    return load_dataset(write_voc_folder(tmp_path / "voc", {"a": xml}, {"train": ["a"]}), "train")


SURE = (1, [0.0, 0.0, 10.0, 10.0], 0.5, 1)


def test_a_wrong_box_inside_a_difficult_object_is_wrong(tmp_path: Path) -> None:
    wrong = (1, [30.0, 10.0, 10.0, 10.0], 0.9, 1)  # wholly inside, IoU 1/16
    result = evaluate_detections(_table([SURE, wrong]), _voc(tmp_path))
    # The wrong box ranks first: precision 1/2 at every recall and threshold.
    assert result.ap == pytest.approx(0.5)
    assert result.objects == 1


def test_a_box_on_a_difficult_object_is_neither_right_nor_wrong(tmp_path: Path) -> None:
    dataset = _voc(tmp_path)
    on_it = (1, [20.0, 0.0, 40.0, 40.0], 0.9, 1)
    found = evaluate_detections(_table([SURE, on_it]), dataset)
    assert found.ap == pytest.approx(1.0)
    missed = evaluate_detections(_table([SURE]), dataset)
    assert missed.ap == pytest.approx(1.0)
    assert [found.ap_small, missed.ap_small] == pytest.approx([1.0, 1.0])
    # Of areas that only the difficult object has, there is nothing to measure.
    assert {found.ap_medium, missed.ap_medium} == {-1.0}


def test_at_most_one_box_is_excused_by_a_difficult_object(tmp_path: Path) -> None:
    on_it, again = (1, [20.0, 0.0, 40.0, 40.0], 0.9, 1), (1, [20.0, 0.0, 40.0, 39.0], 0.8, 1)
    assert evaluate_detections(_table([SURE, on_it, again]), _voc(tmp_path)).ap == pytest.approx(0.5)


def test_a_crowd_excuses_what_lies_within_it(tmp_path: Path) -> None:
    dataset = _voc(tmp_path)
    convert_dataset(dataset.root, tmp_path / "coco", "coco")
    crowds = load_dataset(tmp_path / "coco", "train")
    assert (dataset.crowds_are_difficult, crowds.crowds_are_difficult) == (True, False)
    inside = [(1, [30.0, 10.0, 10.0, 10.0], 0.9, 1), (1, [32.0, 10.0, 10.0, 10.0], 0.9, 1)]
    assert evaluate_detections(_table([SURE, *inside]), crowds).ap == pytest.approx(1.0)


def test_what_becomes_of_difficult_objects_and_crowds_is_told(tmp_path: Path) -> None:
    root = _voc(tmp_path).root
    told = convert_dataset(root, tmp_path / "coco", "coco").lost
    assert any("train: 1 difficult objects become crowds" in sentence for sentence in told)
    back = convert_dataset(tmp_path / "coco", tmp_path / "back", "voc").lost
    assert any("train: 1 crowds become difficult objects" in sentence for sentence in back)
    assert not any("difficult" in line for line in convert_dataset(root, tmp_path / "again", "voc").lost)


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 100_000))
def test_figures_are_those_of_pycocotools_with_ignore_set(seed: int) -> None:
    rng = np.random.default_rng(seed)
    categories = [{"id": 1, "name": "a"}, {"id": 2, "name": "b"}]
    truth, rows, records = [], [], []
    for image in range(1, 5):
        boxes, labels, difficult = [], [], []
        for _ in range(rng.integers(0, 7)):
            corner, sides = rng.integers(0, 60, 2), rng.integers(4, 120, 2)
            box = np.concatenate([corner, sides]).astype(float)
            label, ignored = int(rng.integers(0, 2)), bool(rng.random() < 0.4)
            boxes.append([*corner, *(corner + sides)])
            labels.append(label)
            difficult.append(ignored)
            annotation = {"id": len(truth) + 1, "image_id": image, "category_id": label + 1, "bbox": box.tolist()}
            truth.append({**annotation, "area": box[2] * box[3], "iscrowd": 0, "told_to_ignore": int(ignored)})
            for _ in range(rng.integers(0, 4)):
                moved = box + rng.integers(-4, 5, 4)
                moved[2:] = np.maximum(moved[2:] / rng.choice([1, 1, 2]), 1)
                rows.append((image, moved.tolist(), float(rng.integers(0, 20)) / 20, label + 1))
        corners = np.array(boxes, np.float32).reshape(-1, 4)
        records.append(
            ImageRecord(
                id=image,
                path=Path(f"{image}.jpg"),
                width=200,
                height=200,
                boxes=corners,
                labels=np.array(labels, np.int64),
                crowd=np.array(difficult, np.bool_),
                areas=np.prod(corners[:, 2:] - corners[:, :2], axis=1, dtype=np.float64),
                annotation_ids=np.arange(len(labels), dtype=np.int64),
            )
        )
    rows.append((1, [150.0, 150.0, 9.0, 9.0], 0.31, 1))
    named = (Category(1, "a"), Category(2, "b"))
    dataset = DetectionDataset(Path("x"), "val", "voc", named, tuple(records))
    result: CocoResult = evaluate_detections(_table(rows), dataset)
    with contextlib.redirect_stdout(io.StringIO()):
        annotated = COCO()
        annotated.dataset = {
            "images": [{"id": image, "width": 200, "height": 200} for image in range(1, 5)],
            "annotations": truth,
            "categories": categories,
        }
        annotated.createIndex()
        keys = ("image_id", "bbox", "score", "category_id")
        evaluation = HonouringIgnore(
            annotated, annotated.loadRes([dict(zip(keys, row, strict=True)) for row in rows]), "bbox"
        )
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    np.testing.assert_allclose(list(result.figures.values()), evaluation.stats, rtol=0, atol=1e-9)
    assert result.objects == sum(not annotation["told_to_ignore"] for annotation in truth)


def test_ground_truth_says_which_they_are(tmp_path: Path) -> None:
    dataset = _voc(tmp_path)
    assert GroundTruth.from_dataset(dataset).crowds_are_difficult
    assert GroundTruth.from_dataset(dataset).only(np.array([1])).crowds_are_difficult
