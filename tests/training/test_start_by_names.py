"""Fine-tuning takes the classifier's rows by the names of the classes; a resumed run keeps its own."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from narrow_models import FREE, lively
from tood.data import load_dataset
from tood.errors import ToodError
from tood.evaluation import detect, evaluate
from tood.models.tood import TOOD, TOODConfig
from tood.training import DataConfig, EMAConfig, RunConfig, SGDConfig, TrainResult, train
from tood.weights import load_weights, save_weights
from tood.weights.class_names import match_classes
from training.fakes import tiny_run

SIDE = 64
ONES = ("red", "blue")


def network(classes: int = 2) -> TOODConfig:
    small = replace(FREE, classes=classes, input=replace(FREE.input, short=SIDE, long=SIDE))
    # Without limits that one class's detections could reach because another's are no longer there.
    return replace(small, postprocess=replace(small.postprocess, score_threshold=0.3, max_detections=10_000))


def dataset(root: Path, names: tuple[str, ...], objects: list[dict[str, Any]]) -> Path:
    """Noise with these objects, whose `name` tells their class; both splits are the same pictures."""
    (root / "annotations").mkdir(parents=True)
    ids = {name: 10 * label + 3 for label, name in enumerate(names)}
    rows = [
        {"id": k, "iscrowd": 0, "area": one["bbox"][2] * one["bbox"][3], "category_id": ids[one["name"]], **one}
        for k, one in enumerate(objects, 1)
    ]
    images = [{"id": i, "file_name": f"{i}.png", "width": SIDE, "height": SIDE} for i in range(1, 5)]
    for split in ("train2017", "val2017"):
        (root / split).mkdir()
        for image in images:
            rng = np.random.default_rng(image["id"])
            cv2.imwrite(str(root / split / image["file_name"]), rng.integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8))
        content = {"images": images, "annotations": rows, "categories": [{"id": i, "name": n} for n, i in ids.items()]}
        (root / "annotations" / f"instances_{split}.json").write_text(json.dumps(content))
    return root


@dataclass(frozen=True)
class Knowing:
    """A file of a network that knows ONES, objects that it finds (mostly), and its AP of each class on them."""

    file: Path
    objects: list[dict[str, Any]]
    ap: Mapping[str, float]


@pytest.fixture(scope="module")
def knowing(tmp_path_factory: pytest.TempPathFactory) -> Knowing:
    folder = tmp_path_factory.mktemp("knowing")
    torch.manual_seed(0)
    model = lively(TOOD(network()))
    save_weights(folder / "ones.safetensors", model, ONES)
    blank = load_dataset(dataset(folder / "blank", ONES, [{"image_id": 1, "name": "red", "bbox": [0, 0, 9, 9]}]), "val")
    found = detect(model, blank, workers=0)
    objects = [
        {"image_id": image, "name": ONES[(category - 3) // 10], "bbox": box}
        for image, category, box in zip(
            found.image_ids.tolist(), found.category_ids.tolist(), found.boxes.tolist(), strict=True
        )
        if min(box[2:]) > 2
    ]
    assert {one["name"] for one in objects} == set(ONES)
    ap = evaluate(model, load_dataset(dataset(folder / "data", ONES, objects), "val"), workers=0).per_class
    assert min(ap.values()) > 0.8
    return Knowing(folder / "ones.safetensors", objects, ap)


def fine_tuned(out: Path, data: Path, start: Path, resume: bool = False) -> tuple[TrainResult, str]:
    """A run at rate 0."""
    run: RunConfig = replace(
        tiny_run(out),
        model=network(),
        start_from=str(start),
        optimizer=SGDConfig(lr=1e-30, weight_decay=0),
        ema=EMAConfig(enabled=False),
        data=DataConfig(path=str(data), workers=0),
        epochs=1,
    )
    shown = io.StringIO()
    result = train(run, resume, Console(file=shown, width=1000, force_terminal=False))
    return result, shown.getvalue()


@pytest.mark.parametrize(
    ("names", "sentence", "found"),
    [
        (("red", "blue"), "starts from all", ONES),
        (("blue", "red"), "classes by name: all 2 kept in the order of the dataset", ONES),
        (("cat", "blue", "red"), "classes by name: 2 of 3 kept (blue, red), 1 starts anew (cat)", ONES),
        (("Blue ", "RED"), "all 2 kept in the order of the dataset; 'blue' as 'Blue ', 'red' as 'RED'", ONES),
        (("blue", "cat"), "1 of 2 kept (blue), 1 starts anew (cat), 1 of the file's is dropped", ("blue",)),
        (
            ("cat", "dog"),
            "classes by name: none of the 2 (cat, dog) is among the file's (red, blue), so the classifier starts anew",
            (),
        ),
    ],
)
def test_at_rate_0_each_class_is_found_as_well_as_before(
    tmp_path: Path,
    knowing: Knowing,
    names: tuple[str, ...],
    sentence: str,
    found: tuple[str, ...],
) -> None:
    start, objects = knowing.file, knowing.objects
    plain = {name.strip().lower(): name for name in names}
    # What the dataset calls otherwise are still objects: of its first class.
    other = next((name for name in names if name.strip().lower() not in ONES), names[0])
    renamed = [{**one, "name": plain.get(one["name"], other)} for one in objects]
    result, said = fine_tuned(tmp_path / "run", dataset(tmp_path / "data", names, renamed), start)
    assert sentence in said
    # Classes that are kept are found as before, those that start anew not at all.
    annotated = sorted({one["name"] for one in renamed})
    plain_names = [name.strip().lower() for name in annotated]
    wanted_ap = sum(knowing.ap[name] for name in plain_names if name in found) / len(annotated)
    assert result.ap == pytest.approx(wanted_ap, abs=1e-6)
    again, class_names = load_weights(result.last)
    assert class_names == names
    wanted = load_weights(start)[0].state_dict()
    for name, tensor in again.state_dict().items():
        if name.startswith("head.classifier."):
            for label, class_name in enumerate(names):
                if class_name.strip().lower() in ONES:
                    assert torch.equal(tensor[label], wanted[name][ONES.index(class_name.strip().lower())])
        elif not name.endswith("num_batches_tracked"):
            assert torch.equal(tensor, wanted[name]), name


def test_a_resumed_run_names_the_classes_that_changed(tmp_path: Path, knowing: Knowing) -> None:
    start, objects = knowing.file, knowing.objects
    out = tmp_path / "run"
    fine_tuned(out, dataset(tmp_path / "a", ONES, objects), start)
    for names, sentence in (
        (
            ("blue", "red"),
            r"2 classes \(red, blue\), but the dataset now has 2 \(blue, red\), the same names in another",
        ),
        (("red", "blue", "cat"), r"the dataset now has 3 \(red, blue, cat\), new: cat: .* --from .*best\.safetensors"),
        (("red", "dog"), r"lost: blue; new: dog"),
    ):
        data = dataset(tmp_path / "-".join(names), names, [{"image_id": 1, "name": "red", "bbox": [0, 0, 30, 30]}])
        before = {path: path.read_bytes() for path in out.iterdir() if path.is_file()}
        with pytest.raises(ToodError, match=sentence) as error:
            fine_tuned(out, data, start, resume=True)
        assert "\n" not in str(error.value)
        assert {path: path.read_bytes() for path in out.iterdir() if path.is_file()} == before


NAMES = st.lists(st.sampled_from(["a", "A", "b", "c c", "c_c", "d"]), min_size=1, max_size=5)


@given(wanted=NAMES, known=NAMES)
def test_a_class_never_takes_the_row_of_another(wanted: list[str], known: list[str]) -> None:
    match = match_classes(wanted, known)
    rows = [row for row in match.rows if row is not None]
    assert len(set(rows)) == len(rows)
    plain = [name.lower().replace("_", " ") for name in known]
    for name, row in zip(wanted, match.rows, strict=True):
        if row is not None:
            assert plain[row] == name.lower().replace("_", " ")
            if wanted != known:
                assert known[row] == name or name not in known
        elif known.count(name) == wanted.count(name) == 1:
            pytest.fail(f"{name} was not found")
    if wanted == known:
        assert match.same
    assert "\n" not in str(match)
    for name in match.ambiguous:
        assert name in str(match)


def test_what_could_be_several_is_told_and_starts_anew() -> None:
    assert match_classes(["cat"], ["Cat", "CAT"]).rows == (None,)
    assert "which row is meant cannot be told for cat" in str(match_classes(["cat"], ["Cat", "CAT"]))
    assert match_classes(["cat", "x"], ["cat", "Cat"]).rows == (0, None)
    assert match_classes(["cat", "x"], ["cat", "cat"]).rows == (None, None)
    assert match_classes(["cat", "cat"], ["cat", "cat"]).same


def test_another_spelling_in_the_same_order_is_told() -> None:
    match = match_classes(["Red", "caf\u00e9"], ["red", "cafe\u0301"])
    assert match.same
    assert not match.unchanged
    assert str(match) == r"classes by name: all 2 kept; 'red' as 'Red', 'cafe\u0301' as 'caf\xe9'"
