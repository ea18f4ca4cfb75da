"""Ids are exact whole numbers from end to end, and every room has the same rule for an area that is none."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bright_square import BrightRectangle
from dataset_files import box_row, coco, image_row, write_coco_folder
from evaluation.test_coco import evaluate, random_case, reference_figures, table_of, write
from evaluation.test_run import coco_folder
from tood.data import dataset_stats, load_dataset
from tood.data.formats.folder import annotated_areas
from tood.errors import ToodError
from tood.evaluation import DetectionTable, GroundTruth, detect, evaluate_detections

IDS = st.integers(-(2**63), 2**63 - 1)


def renamed(content: dict[str, Any], image: dict[int, int], category: dict[int, int]) -> dict[str, Any]:
    """The same annotations under other ids of the images and the categories."""
    return {
        "images": [{**row, "id": image[row["id"]]} for row in content["images"]],
        "categories": [{**row, "id": category[row["id"]]} for row in content["categories"]],
        "annotations": [
            {**row, "image_id": image[row["image_id"]], "category_id": category[row["category_id"]]}
            for row in content["annotations"]
        ],
    }


@settings(max_examples=25)
@given(
    seed=st.integers(0, 1000),
    images=st.lists(IDS, min_size=6, max_size=6, unique=True),
    categories=st.lists(IDS, min_size=3, max_size=3, unique=True),
)
def test_any_64_bit_ids_give_the_figures_of_small_ones(
    seed: int, images: list[int], categories: list[int], tmp_path_factory: pytest.TempPathFactory
) -> None:
    truth, detections = random_case(seed)
    # In the same order: which of equally sure detections comes first decides.
    image = dict(zip((row["id"] for row in truth["images"]), sorted(images), strict=True))
    category = dict(zip((row["id"] for row in truth["categories"]), sorted(categories), strict=True))
    other = renamed(truth, image, category)
    moved = [
        {**row, "image_id": image[row["image_id"]], "category_id": category[row["category_id"]]} for row in detections
    ]
    folder = tmp_path_factory.mktemp("ids")
    wanted, _ = reference_figures(truth, detections)
    for given_as in (write(folder, "d.json", moved), table_of(moved)):
        result = evaluate_detections(given_as, write(folder, "t.json", other))
        np.testing.assert_allclose(list(result.figures.values()), wanted, rtol=0, atol=1e-6)
        assert result.per_class_objects == {
            row["name"]: sum(a["category_id"] == row["id"] and not a["iscrowd"] for a in other["annotations"])
            for row in other["categories"]
        }


@pytest.mark.parametrize("first", [2**53 + 1, 2**62 + 1, 2**63 - 9, 1 - 2**63, -5])
def test_from_the_folder_to_the_results_file(tmp_path: Path, first: int) -> None:
    root = coco_folder(tmp_path / "data")
    path = root / "annotations" / "instances_val2017.json"
    content = json.loads(path.read_text())
    path.write_text(json.dumps(renamed(content, {100 + i: first + i for i in range(4)}, {12: first, 44: first + 1})))
    dataset = load_dataset(root, "val")
    assert [image.id for image in dataset.images] == [first + i for i in range(4)]
    table = detect(BrightRectangle().train(), dataset, batch_size=2, workers=0)  # type: ignore[arg-type]
    assert sorted(set(table.image_ids.tolist())) == [first, first + 1, first + 3]
    result = evaluate_detections(table, dataset)
    assert result.ap50 == pytest.approx(1)
    table.save(tmp_path / "d.json")
    rows = json.loads((tmp_path / "d.json").read_text())
    assert {row["image_id"] for row in rows} == {first, first + 1, first + 3}
    assert {row["category_id"] for row in rows} == {first, first + 1}
    assert evaluate_detections(tmp_path / "d.json", dataset) == result


def test_neighbouring_large_ids_are_not_confused(tmp_path: Path) -> None:
    # As floats both are 2^53.
    low, high = 2**53, 2**53 + 1
    rows = [box_row(1, low), box_row(2, high, (30, 20, 20, 10))]
    content = coco([image_row(low, "a.png"), image_row(high, "b.png")], rows, {3: "cat"})
    found = [{"image_id": row["image_id"], "category_id": 3, "bbox": row["bbox"], "score": 0.5} for row in rows]
    truth = write(tmp_path, "t.json", content)
    assert evaluate_detections(write(tmp_path, "d.json", found), truth).ap == pytest.approx(1)
    swapped = [{**found[0], "image_id": high}, {**found[1], "image_id": low}]
    assert evaluate_detections(write(tmp_path, "d.json", swapped), truth).ap == 0
    with pytest.raises(ToodError, match=r"image_id that the annotations .* lack \(first 9007199254740994\)"):
        evaluate_detections(write(tmp_path, "d.json", [{**found[0], "image_id": 2**53 + 2}]), truth)


@pytest.mark.parametrize("wrong", ["1x", 1.5, 2.0**53, 2**63, True, None])
def test_an_id_that_is_no_exact_whole_number_is_one_sentence(tmp_path: Path, wrong: object) -> None:
    entry = {"image_id": wrong, "category_id": 3, "bbox": [1, 2, 3, 4], "score": 0.5}
    with pytest.raises(ToodError, match="image_id must be a whole number"):
        DetectionTable.read(write(tmp_path, "d.json", [entry]))
    content = coco([{**image_row(1), "id": wrong}], [], {3: "cat"})
    with pytest.raises(ToodError, match=r"id is .*, not a whole number"):
        GroundTruth.from_json(write(tmp_path, "t.json", content))
    if wrong != 2.0**53:  # the reader may take whole floats
        with pytest.raises(ToodError, match=r"its id is .*, not a whole number"):
            load_dataset(write_coco_folder(tmp_path / "data", content, images=False), images_required=False)


@pytest.mark.parametrize("area", [None, float("nan"), float("inf"), -7.0, 0, "missing"])
def test_an_area_that_is_none_is_the_box_s_in_every_room(tmp_path: Path, area: object) -> None:
    sides = (10, 40, 120)  # small, medium and large
    rows = [box_row(k, 1, (5, 5, side, side), area=area) for k, side in enumerate(sides)]
    if area == "missing":
        rows = [{name: value for name, value in row.items() if name != "area"} for row in rows]
    content = coco([image_row(1, width=200, height=200)], rows, {3: "cat"})
    source = write_coco_folder(tmp_path, content)
    wanted = [100.0, 1600.0, 14400.0]
    dataset = load_dataset(tmp_path, "train")
    assert dataset.images[0].areas.tolist() == wanted
    assert dataset_stats(dataset).by_size == {"small": 1, "medium": 1, "large": 1}
    assert GroundTruth.from_json(source).areas.tolist() == wanted
    medium = [{"image_id": 1, "category_id": 3, "bbox": [5, 5, 40, 40], "score": 0.5}]
    result = evaluate_detections(write(tmp_path, "d.json", medium), source)
    assert (result.ap_small, result.ap_medium, result.ap_large) == (0, pytest.approx(1), 0)
    told = [{**row, "area": size} for row, size in zip(rows, wanted, strict=True)]
    assert evaluate({**content, "annotations": told}, table_of(medium)) == result


@pytest.mark.parametrize("area", [True, [1], "large", 10**400])
def test_what_is_no_area_at_all_is_the_box_s(area: object) -> None:
    assert annotated_areas([area, 9.5], np.array([4.0, 5.0])).tolist() == [4.0, 9.5]
