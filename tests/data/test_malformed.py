"""Generated datasets with things wrong in them: no traceback, and no wrong box that trains unsaid.

`TOOD_MALFORMED=1000 pytest tests/data/test_malformed.py` makes so many of them; left out, 600.
"""

from __future__ import annotations

import json
import os
import tempfile
import xml.etree.ElementTree as ElementTree
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from typer.testing import CliRunner

from data.loaders import small_model, train_loader
from data.malformed import STRATEGIES, Files, write
from tood.cli.main import app
from tood.data import (
    DetectionDataset,
    ImageRecord,
    available_splits,
    check_dataset,
    load_dataset,
)
from tood.errors import ToodError

EXAMPLES = -(-int(os.environ.get("TOOD_MALFORMED", "600")) // len(STRATEGIES))
generated = settings(max_examples=EXAMPLES, derandomize=True, deadline=None, suppress_health_check=list(HealthCheck))


@pytest.mark.parametrize("format_", STRATEGIES)
def test_malformed_datasets_are_refused_or_train_on_sound_boxes(format_: str) -> None:
    outcomes: Counter[str] = Counter()

    @generated
    @given(files=STRATEGIES[format_]())
    def run(files: Files) -> None:
        with tempfile.TemporaryDirectory() as folder:
            write(Path(folder), files)
            outcomes[outcome(Path(folder))] += 1

    run()
    print(format_, dict(outcomes))  # shown by pytest -s
    # The generator makes both kinds: else it would test nothing.
    assert outcomes["refused"] > EXAMPLES * 0.05
    assert outcomes["trains"] > EXAMPLES * 0.05


def outcome(root: Path) -> str:
    """What becomes of a dataset: `refused`, `stops at an image` or `trains`; every demand is asserted."""
    try:
        split = next(iter(available_splits(root)))
        report = check_dataset(root, split, workers=1)
    except ToodError as error:
        require_one_sentence(error)
        with pytest.raises(ToodError):
            load_dataset(root, "train")
        return "refused"
    require_counted(report.to_dict())
    try:
        dataset = load_dataset(root, split)
    except ToodError as error:
        require_one_sentence(error, report.ok)
        return "refused"
    require_sound(dataset)
    require_nothing_lost(root, dataset)
    try:
        for batch in train_loader(dataset, small_model(32), 2, 0, cache=False):
            for target, (height, width) in zip(batch.targets, batch.sizes.tolist(), strict=True):
                require_inside(target.boxes.numpy(), width, height)
                assert ((target.labels >= 0) & (target.labels < len(dataset.categories))).all()
    except ToodError as error:
        require_one_sentence(error, report.ok)
        return "stops at an image"
    assert report.ok, f"trains, but `tood data check` finds {report.of('error')}"
    return "trains"


def require_one_sentence(error: ToodError, check_found_nothing: bool = False) -> None:
    text = str(error)
    assert not check_found_nothing, f"`tood data check` finds nothing wrong, but: {text}"
    assert text.strip()
    assert "Traceback" not in text
    assert "\n" not in text


def require_counted(report: dict[str, Any]) -> None:
    json.dumps(report, allow_nan=False)  # --json writes it
    kinds = Counter(problem["kind"] for problem in report["problems"])
    assert (report["clipped"], report["dropped"]) == (kinds["box_clipped"], kinds["box_dropped"])


def require_inside(boxes: NDArray[np.float32], width: float, height: float) -> None:
    assert np.isfinite(boxes).all()
    assert (boxes >= 0).all()
    assert (boxes <= np.array([width, height, width, height], np.float32)).all()
    assert (boxes[:, 2:] > boxes[:, :2]).all()


def require_sound(dataset: DetectionDataset) -> None:
    assert dataset.categories or not dataset.box_count
    assert len({image.id for image in dataset.images}) == len(dataset.images)
    for image in dataset.images:
        require_inside(image.boxes, image.width, image.height)
        assert ((image.labels >= 0) & (image.labels < len(dataset.categories))).all()
        assert len(image.boxes) == len(image.labels) == len(image.crowd) == len(image.areas)
        assert np.isfinite(image.areas).all()
        assert (image.areas >= 0).all()


# --- an own, slower reading of the files -----------------------------------------------------------------------------


def require_nothing_lost(root: Path, dataset: DetectionDataset) -> None:
    """Every annotation of the files is a box of the dataset, its own one, or a problem that tells of it."""
    counts = dataset.problem_counts()
    told = counts.get("box_dropped", 0) + counts.get("unknown_image", 0)
    clipped, wanted = 0, 0
    read = {"coco": coco_rows, "yolo": yolo_rows, "voc": voc_rows}[dataset.format]
    for image, rows in read(root, dataset):
        wanted += len(rows)
        if image is None:
            continue
        kept = [row for row in (expected(image, *row) for row in rows) if row is not None]
        assert len(kept) == len(image.boxes)
        for (name, box, cut), own, label in zip(kept, image.boxes, image.labels.tolist(), strict=True):
            assert dataset.categories[label].name == name
            np.testing.assert_allclose(own, box, atol=2e-3)
            clipped += cut
    assert wanted == dataset.box_count + told
    assert clipped == counts.get("box_clipped", 0)


def expected(image: ImageRecord, name: str, box: list[float]) -> tuple[str, list[float], bool] | None:
    """A box as it should be, and whether it was cut; None where it has no area inside the image."""
    if not all(np.isfinite(box)) or box[2] <= box[0] or box[3] <= box[1]:
        return None
    limits = (image.width, image.height) * 2
    inside = [min(max(value, 0.0), float(limit)) for value, limit in zip(box, limits, strict=True)]
    stored = [float(np.float32(value)) for value in inside]
    if stored[2] <= stored[0] or stored[3] <= stored[1]:
        return None
    return name, inside, max(abs(a - b) for a, b in zip(box, inside, strict=True)) > 0.5


Rows = list[tuple[ImageRecord | None, list[tuple[str, list[float]]]]]


def coco_rows(root: Path, dataset: DetectionDataset) -> Rows:
    content = json.loads((root / "annotations" / "instances_train.json").read_bytes().decode("utf-8-sig"))
    names = {row["id"]: row["name"] for row in content["categories"]}
    found: Rows = []
    records = {image.id: image for image in dataset.images}
    for image in dataset.images:
        rows = [row for row in content.get("annotations") or [] if row["image_id"] == image.id]
        found.append((image, [(names[row["category_id"]], corners_of(row["bbox"])) for row in rows]))
    lost = [row for row in content.get("annotations") or [] if row["image_id"] not in records]
    found.append((None, [("", corners_of(row["bbox"])) for row in lost]))
    return found


def corners_of(box: list[float]) -> list[float]:
    x, y, width, height = map(float, box)
    return [x, y, x + width, y + height]


def yolo_rows(root: Path, dataset: DetectionDataset) -> Rows:
    found: Rows = []
    for image in dataset.images:
        path = Path(str(image.path).replace("/images/", "/labels/")).with_suffix(".txt")
        lines = path.read_text(encoding="utf-8-sig").splitlines() if path.is_file() else []
        rows = []
        for line in lines:
            values = [float(word) for word in line.split()]
            if not values:
                continue
            if len(values) == 5:
                x, y, w, h = values[1:]
                box = [x - w / 2, y - h / 2, x + w / 2, y + h / 2]
            elif not np.isfinite(values).all():
                box = [np.nan] * 4
            else:
                box = [min(values[1::2]), min(values[2::2]), max(values[1::2]), max(values[2::2])]
            scaled = [part * side for part, side in zip(box, (image.width, image.height) * 2, strict=True)]
            rows.append((dataset.categories[int(values[0])].name, scaled))
        found.append((image, rows))
    return found


def voc_rows(root: Path, dataset: DetectionDataset) -> Rows:
    found: Rows = []
    by_stem = {image.path.stem: image for image in dataset.images}
    for path in sorted((root / "Annotations").glob("*.xml")):
        image = by_stem.get(path.stem)
        if image is None:
            continue  # not in the split's list
        rows = []
        for item in ElementTree.fromstring(path.read_bytes()).findall("object"):
            corners = [float(item.findtext(f"bndbox/{key}") or "") for key in ("xmin", "ymin", "xmax", "ymax")]
            click = corners[2] <= corners[0] or corners[3] <= corners[1]
            box = [np.nan] * 4 if click else [corners[0] - 1, corners[1] - 1, corners[2], corners[3]]
            rows.append(((item.findtext("name") or "").strip(), box))
        found.append((image, rows))
    return found


# --- the real command ------------------------------------------------------------------------------------------------


@settings(max_examples=6, derandomize=True, deadline=None, suppress_health_check=list(HealthCheck))
@pytest.mark.parametrize("format_", STRATEGIES)
@given(data=st.data())
def test_tood_train_and_check_end_well_or_in_one_sentence(format_: str, data: st.DataObject) -> None:
    files = data.draw(STRATEGIES[format_]())
    with tempfile.TemporaryDirectory() as folder:
        write(Path(folder) / "data", files)
        runner = CliRunner()
        check = runner.invoke(app, ["data", "check", f"{folder}/data"])
        assert check.exit_code in (0, 1, 2), check.exception
        options = ["--epochs", "1", "--size", "128", "--batch-size", "2", "--workers", "0", "--device", "cpu"]
        options += ["--set", "ema.enabled=false", "--set", "precision=fp32"]
        train = runner.invoke(app, ["train", "--data", f"{folder}/data", "--out", f"{folder}/run", *options])
        assert isinstance(train.exception, SystemExit | None), train.exception
        assert train.exit_code in (0, 2)
        if train.exit_code == 2:
            assert train.stderr.strip().splitlines()[-1].startswith("tood: ")
            assert "Traceback" not in train.stderr
        else:
            assert check.exit_code == 0
            assert (Path(folder) / "run" / "best.safetensors").is_file()
