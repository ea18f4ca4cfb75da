"""A network over a dataset on disk: image and category ids, scales, classes matched by name."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from rich.console import Console

from bright_square import BrightRectangle, picture, save_picture
from tood.data import Category, DetectionDataset, load_dataset
from tood.errors import ToodError
from tood.evaluation import DetectionTable, detect, evaluate, evaluate_detections, result_table, save_result
from tood.inference import Detector

# File name: height, width, box.
PICTURES = {
    "wide.png": (120, 200, (20, 30, 110, 90)),
    "tall.png": (300, 100, (10, 100, 60, 250)),
    "dark.png": (80, 80, None),
    "odd.png": (77, 131, (40, 20, 101, 70)),
}


def coco_folder(root: Path, names: tuple[str, str] = ("dark", "bright")) -> Path:
    images, annotations = [], []
    for i, (name, (height, width, box)) in enumerate(PICTURES.items()):
        save_picture(root / "val2017" / name, picture(height, width, box))
        images.append({"id": 100 + i, "file_name": name, "height": height, "width": width})
        if box is not None:
            x1, y1, x2, y2 = box
            sides = {"bbox": [x1, y1, x2 - x1, y2 - y1], "area": (x2 - x1) * (y2 - y1), "iscrowd": 0}
            annotations.append({"id": 7 + i, "image_id": 100 + i, "category_id": 44, **sides})
    categories = [{"id": 12, "name": names[0]}, {"id": 44, "name": names[1]}]
    path = root / "annotations" / "instances_val2017.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps({"images": images, "annotations": annotations, "categories": categories}))
    return root


@pytest.fixture
def dataset(tmp_path: Path) -> DetectionDataset:
    return load_dataset(coco_folder(tmp_path), "val")


def network() -> BrightRectangle:
    return BrightRectangle().train()


def test_detections_carry_the_file_s_ids_and_pixels(dataset: DetectionDataset) -> None:
    model, seen = network(), []
    table = detect(model, dataset, batch_size=3, workers=0, progress=lambda done, total: seen.append((done, total)))  # type: ignore[arg-type]
    assert sorted(table.image_ids.tolist()) == [100, 100, 101, 101, 103, 103]
    assert seen[-1] == (4, 4)
    assert model.training
    sure = table.scores > 0.5
    assert set(table.category_ids[sure].tolist()) == {44}
    assert set(table.category_ids[~sure].tolist()) == {12}
    for image_id, (x, y, width, height) in zip(table.image_ids[sure], table.boxes[sure], strict=True):
        box = list(PICTURES.values())[image_id - 100][2]
        np.testing.assert_allclose([x, y, x + width, y + height], box, atol=4)


def test_it_measures_what_the_detector_finds(dataset: DetectionDataset) -> None:
    table = detect(network(), dataset, batch_size=2, workers=0)  # type: ignore[arg-type]
    detector = Detector.from_model(network(), dataset.class_names, "cpu")  # type: ignore[arg-type]
    for record in dataset.images:
        own = table.image_ids == record.id
        found = detector(record.path)
        corners = np.concatenate([table.boxes[own, :2], table.boxes[own, :2] + table.boxes[own, 2:]], 1)
        np.testing.assert_allclose(corners, found.boxes.numpy().reshape(-1, 4), atol=2e-3)
        np.testing.assert_allclose(table.scores[own], found.scores.numpy(), atol=1e-6)


def test_a_model_and_its_detections_json_have_the_same_figures(dataset: DetectionDataset, tmp_path: Path) -> None:
    result = evaluate(network(), dataset, workers=0)  # type: ignore[arg-type]
    assert result.ap50 == pytest.approx(1)
    assert result.per_class["dark"] == -1
    assert result.per_class_objects == {"dark": 0, "bright": 3}
    detect(network(), dataset, workers=0).save(tmp_path / "d.json")  # type: ignore[arg-type]
    assert evaluate_detections(tmp_path / "d.json", dataset) == result


def with_categories(dataset: DetectionDataset, *names: str) -> DetectionDataset:
    return replace(dataset, categories=tuple(Category(12 + 32 * i, name) for i, name in enumerate(names)))


def test_classes_are_matched_by_name(dataset: DetectionDataset) -> None:
    # The model's second class is the dataset's second by name, whatever the order; what the dataset lacks is left out.
    swapped = detect(network(), dataset, ["bright", "dark"], workers=0)  # type: ignore[arg-type]
    assert set(swapped.category_ids[swapped.scores > 0.5].tolist()) == {12}
    extra = detect(network(), dataset, ["unheard of", "bright"], workers=0)  # type: ignore[arg-type]
    assert set(extra.category_ids.tolist()) == {44}


def test_classes_that_cannot_be_matched_are_one_sentence(dataset: DetectionDataset) -> None:
    with pytest.raises(ToodError, match=r"does not know 1 of the 2 classes .*: 'bright'"):
        detect(network(), dataset, ["cat", "dog"], workers=0)  # type: ignore[arg-type]
    with pytest.raises(ToodError, match=r"the model has 2 classes and .* has 3"):
        detect(network(), with_categories(dataset, "a", "b", "c"), workers=0)  # type: ignore[arg-type]


def test_a_name_of_several_classes_is_matched_with_none(dataset: DetectionDataset) -> None:
    for names in (["bright", "bright"], ["bright", "dark", "bright"]):
        with pytest.raises(ToodError, match="cannot be matched by name: several are called bright"):
            detect(network(), dataset, names, workers=0)  # type: ignore[arg-type]
    twice = with_categories(dataset, "bright", "bright")
    with pytest.raises(ToodError, match="several are called bright"):
        detect(network(), twice, ["bright", "dark"], workers=0)  # type: ignore[arg-type]
    assert set(detect(network(), twice, ["bright", "bright"], workers=0).category_ids.tolist()) == {12, 44}  # type: ignore[arg-type]


def test_a_broken_image_is_one_sentence_and_leaves_the_model_as_it_was(dataset: DetectionDataset) -> None:
    dataset.images[1].path.write_bytes(b"broken")
    model = network()
    with pytest.raises(ToodError, match=r"tall\.png"):
        detect(model, dataset, workers=0)  # type: ignore[arg-type]
    assert model.training


def test_the_table_says_every_figure_and_class(dataset: DetectionDataset) -> None:
    result = evaluate(
        network(), replace(dataset, categories=(Category(12, "[dark]"), Category(44, "bright"))), workers=0
    )  # type: ignore[arg-type]
    console = Console(width=100, record=True, file=open("/dev/null", "w"))  # noqa: SIM115, PTH123
    console.print(result_table(result))
    text = console.export_text()
    for word in (
        "AP50",
        "AP small",
        "AR 100",
        "[dark]" if "[dark]" in result.per_class else "dark",
        "bright",
        "1.0000",
    ):
        assert word in text
    assert "-1.0" not in text


def test_json_of_the_figures(dataset: DetectionDataset, tmp_path: Path) -> None:
    result = evaluate_detections(DetectionTable.empty(), dataset)
    save_result(result, tmp_path / "deep" / "m.json")
    content = json.loads((tmp_path / "deep" / "m.json").read_text())
    assert list(content)[:12] == list(result.figures)
    assert content["per_class"] == {"dark": -1, "bright": 0}
    with pytest.raises(ToodError, match="cannot be written"):
        save_result(result, tmp_path / "deep" / "m.json" / "x.json")


def test_no_model_is_left_in_inference_tensors(dataset: DetectionDataset) -> None:
    model = network()
    detect(model, dataset, workers=0)  # type: ignore[arg-type]
    assert not any(parameter.is_inference() for parameter in model.parameters())
    assert torch.is_grad_enabled()


def test_pictures_without_labels_are_not_evaluated_but_predicted_on(tmp_path: Path) -> None:
    save_picture(tmp_path / "a.png", picture(80, 60, None))
    with pytest.raises(ToodError, match="names no classes to look for: `tood predict` finds"):
        detect(network(), load_dataset(tmp_path), class_names=("dark", "bright"), workers=0)  # type: ignore[arg-type]
