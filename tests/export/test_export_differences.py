"""When a certificate is issued, and how detections are compared for it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace

import pytest
import torch
from benchmarks.export_parity import differences, of_engine
from torch import Tensor

from narrow_models import EXAMPLES, lively
from tood.engines import Engine, PriorGrid
from tood.engines.description import ExportedModel
from tood.export.certificate import ApChange, Certificate
from tood.export.parity import ParityCase, errors_of_found
from tood.inference import Found
from tood.models import build_model
from tood.structures import DensePredictions

ABOUT = ExportedModel(EXAMPLES["atss-plain"], tuple("abcdefg"), "nms", False, "fp32", PriorGrid(0.5, 8.0))
NOTHING = ParityCase((240, 320), (64, 96), 1, 0.0, 0.0, 0, 0)
ALIKE = replace(NOTHING, compared=10)


def _complaints(precision: str, case: ParityCase, before: float | None) -> tuple[str, ...]:
    ap = None if before is None else ApChange("data", "val", 8, before, before)
    description = replace(ABOUT, precision=precision)
    return Certificate({}, 1, description, "onnxruntime", "6 pictures", (case,), ap, {}, {}).complaints


@pytest.mark.parametrize(("precision", "case", "before", "said"), [
    ("fp32", ALIKE, None, ""),
    ("fp32", NOTHING, None, "nothing was compared"),
    ("fp32", NOTHING, 0.5, "nothing was compared"),
    ("fp16", NOTHING, None, "nothing was compared"),
    ("fp16", NOTHING, 0.5, ""),
    ("fp16", NOTHING, 0.0, "nothing was compared"),
    ("fp16", ALIKE, -1.0, ""),
    ("int8", ALIKE, 0.5, ""),
    ("int8", ALIKE, 0.0, "the AP is 0 before"),
    ("int8", ALIKE, -1.0, "cannot be measured"),
])  # fmt: skip
def test_no_certificate_where_nothing_was_compared(
    precision: str, case: ParityCase, before: float | None, said: str
) -> None:
    told = _complaints(precision, case, before)
    assert (len(told), said in "".join(told)) == (bool(said), True), told
    assert not said or "--data" in told[0]


def _found(boxes: list[list[float]], scores: list[float], labels: list[int]) -> list[Found]:
    return [Found(torch.tensor(boxes), torch.tensor(scores), torch.tensor(labels))]


LARGE, SMALL = [10.0, 10.0, 50.0, 50.0], [60.0, 60.0, 64.0, 64.0]


def test_scores_of_partners_are_measured_however_far_they_are_apart() -> None:
    wanted = _found([LARGE, SMALL], [0.9, 0.8], [0, 1])
    boxes, scores, compared, unmatched = errors_of_found(wanted, _found([SMALL, LARGE], [0.6, 0.85], [1, 0]), 0.5)
    assert (boxes, compared, unmatched) == (0.0, 2, 0)
    assert scores == pytest.approx(0.2)


def test_a_detection_has_one_partner_at_most() -> None:
    """Two of PyTorch's lie where the file has one: the nearest score is its partner, the other is alone."""
    wanted, given = _found([LARGE, LARGE], [0.9, 0.5], [0, 0]), _found([LARGE], [0.5], [0])
    assert errors_of_found(wanted, given, 0.5) == (0.0, 0.0, 2, 1)
    assert errors_of_found(given, wanted, 0.5) == (0.0, 0.0, 1, 1)


def test_partners_are_of_one_class_and_one_place() -> None:
    moved = [[coordinate + 0.4 for coordinate in SMALL], [coordinate + 5 for coordinate in LARGE]]
    wanted = _found([SMALL, LARGE], [0.9, 0.5], [0, 0])
    boxes, _, _, unmatched = errors_of_found(wanted, _found(moved, [0.9, 0.5], [0, 0]), 0.5)
    assert boxes == pytest.approx(0.4, abs=1e-4)
    assert unmatched == 2
    assert errors_of_found(wanted, _found([SMALL, LARGE], [0.9, 0.5], [1, 1]), 0.5) == (0.0, 0.0, 2, 4)
    assert errors_of_found(wanted, [Found(torch.zeros(0, 4), torch.zeros(0), torch.zeros(0, dtype=torch.long))], 0.5)[
        2:
    ] == (2, 2)


@pytest.mark.parametrize("part", ["boxes", "scores", "quality"])
def test_the_benchmark_shows_what_is_no_number_and_what_is_apart(part: str) -> None:
    """PyTorch stands in for the engine; in the first batch alone one output is not what it should be."""
    model = lively(build_model(EXAMPLES["atss-plain"]))
    batches: list[int] = []

    def run(inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        with torch.inference_mode():
            predictions: DensePredictions = model(inputs["images"])
        assert predictions.quality is not None
        outputs = {"boxes": predictions.boxes, "scores": predictions.probabilities()}
        outputs["quality"] = predictions.quality.sigmoid()
        batches.append(len(inputs["images"]))
        if len(batches) == 1:
            outputs[part] = outputs[part] * math.nan
        return outputs

    with torch.inference_mode():
        grid = PriorGrid.of(model(torch.zeros(1, 3, 32, 32)).priors)
    engine = Engine(replace(ABOUT, graph="dense", grid=grid), "onnxruntime", run)
    found = differences(model, of_engine(engine), 32)
    assert [math.isnan(value) for value in found] == [part == "boxes", part != "boxes"]
    assert batches == [1, 2, 3]
