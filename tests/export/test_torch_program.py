"""PyTorch's own programs: pictures in, boxes out, whatever the batch and the size, with the numbers of the network."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
import torch
from torch import Tensor

from narrow_models import BASED, EXAMPLES, FREE, NARROW_ATSS, RESNEXT_DEFORMABLE, lively
from tood.engines import Engine, open_exported
from tood.engines.program_file import on_device
from tood.export import ExportConfig, Origin, compare, description_of
from tood.export.network import export_network
from tood.export.parity import MOST_UNMATCHED, TOLERANCES
from tood.export.sample_pictures import pictures_of
from tood.export.torch_program import operators_of, save_program, whole_program
from tood.inference import Detector
from tood.models import AnyDetector, AnyModelConfig, build_model
from tood.models.common import TopKConfig
from tood.models.tood import TOODConfig
from tood.ops import plain

CLASSES = tuple("abcdefg")


def _short(config: TOODConfig) -> TOODConfig:
    """With three levels and two interactive layers, the first one deformable where some are: tracing takes its time."""
    return replace(
        config,
        neck=replace(config.neck, levels=3),
        head=replace(config.head, interactive_layers=2, deformable_layers=min(config.head.deformable_layers, 1)),
    )


NETWORKS: dict[str, AnyModelConfig] = {
    "anchor-free": replace(_short(FREE), neck=FREE.neck),
    "anchor-based": _short(BASED),
    "resnext-dcn": _short(RESNEXT_DEFORMABLE),
    "atss": replace(
        NARROW_ATSS, neck=replace(NARROW_ATSS.neck, levels=3), head=replace(NARROW_ATSS.head, tower_layers=1)
    ),
}
# The traced one, then others, of which the last have maps of one row, of one column and of one cell.
SIZES = ((2, 256, 288), (1, 160, 224), (3, 320, 160), (1, 192, 416), (2, 32, 256), (1, 256, 64), (1, 32, 32))


@pytest.mark.parametrize("name", NETWORKS)
def test_one_graph_for_any_batch_and_size(name: str) -> None:
    model = lively(build_model(NETWORKS[name]))
    description = description_of(Origin(model, CLASSES), ExportConfig("torch"))
    # Norms are folded in both; what folding them costs is measured with the other engines.
    exported, network = whole_program(model, description).module(), export_network(model, "grid_sample")
    names = description.outputs
    assert (names, "quality" in names) == (network.names, model.config.predicts_quality)
    for batch, height, width in SIZES:
        images = torch.randn(batch, 3, height, width, generator=torch.Generator().manual_seed(height))
        with torch.inference_mode(), plain():
            given, wanted = exported(images), network(images)
        for name, one, other in zip(names, given, wanted, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-4 if name == "boxes" else 1e-6)
    with pytest.raises(RuntimeError):  # no whole divisors: refused, never computed wrongly
        exported(torch.zeros(1, 3, 160, 225))


@cache
def _model(name: str) -> AnyDetector:
    return lively(build_model(EXAMPLES[name]))


def _engine(model: AnyDetector, config: ExportConfig, path: Path) -> Engine:
    description = description_of(Origin(model, CLASSES), config)
    save_program(whole_program(model, description), path, description)
    engine = open_exported(path)
    assert engine.description == description
    return engine


@pytest.mark.parametrize(("name", "raw"), [
    ("tood-plain", True),
    ("tood-deformable", True),
    ("ppyoloe-plain", False),
    ("paa-plain", True),
    ("yolox-plain", True),
])  # fmt: skip
def test_suppression_and_whole_pictures_within_the_program(name: str, raw: bool, tmp_path: Path) -> None:
    model = _model(name)
    engine = _engine(model, ExportConfig("torch", "nms", raw), tmp_path / "model.pt2")
    cases = compare(model, engine, pictures_of(None, 3))
    assert {case.batch for case in cases} == {1, 2, 3}
    compared = sum(case.compared for case in cases)
    assert compared > 100
    # What a certificate lets pass.
    assert sum(case.unmatched for case in cases) <= MOST_UNMATCHED * compared
    assert max(case.boxes for case in cases) <= TOLERANCES["fp32"].pixels
    assert max(case.scores for case in cases) <= TOLERANCES["fp32"].score
    # Its coarsest map has a single row.
    narrow = pictures_of(None, 1)[0][:8]
    ours, theirs = Detector.from_model(model, CLASSES, precision="fp32")(narrow), Detector.from_engine(engine)(narrow)
    assert len(ours) == len(theirs) > 0
    torch.testing.assert_close(theirs.scores, ours.scores, rtol=0, atol=1e-3)


def test_the_best_of_a_head_that_gives_each_object_once(tmp_path: Path) -> None:
    model = _model("atss-plain")
    own = replace(model.config, postprocess=TopKConfig(score_threshold=0.3, max_detections=20))
    model = lively(build_model(own))
    engine = _engine(model, ExportConfig("torch", "topk", raw=True, size=(64, 96)), tmp_path / "model.pt2")
    cases = compare(model, engine, pictures_of(None, 3))
    assert sum(case.compared for case in cases) > 100
    assert sum(case.unmatched for case in cases) <= MOST_UNMATCHED * sum(case.compared for case in cases)
    assert max(case.boxes for case in cases) <= TOLERANCES["fp32"].pixels


def test_convolutions_in_half_precision(tmp_path: Path) -> None:
    """Weights are stored so, and what the rest computes with stays in fp32."""
    model = _model("tood-mobile")
    kinds = {}
    for precision in ("fp32", "fp16"):
        config = ExportConfig("torch", "nms", precision=precision, size=(64, 96), batch=1)
        description = description_of(Origin(model, CLASSES), config)
        program = whole_program(model, description)
        kept = [*program.state_dict.values(), *program.constants.values()]
        kinds[precision] = {tensor.dtype for tensor in kept if isinstance(tensor, Tensor) and tensor.dim() == 4}
        save_program(program, tmp_path / f"{precision}.pt2", description)
    assert kinds == {"fp32": {torch.float32}, "fp16": {torch.float16}}
    picture = pictures_of(None, 1)[0]
    ours, theirs = (Detector(tmp_path / f"{precision}.pt2")(picture) for precision in ("fp32", "fp16"))
    assert len(ours) == len(theirs) > 10
    assert 0 < (ours.scores - theirs.scores).abs().max() < TOLERANCES["fp16"].score


def test_a_program_goes_to_another_device_as_a_whole() -> None:
    """The places of priors, too, which it computes from nothing."""
    model = _model("tood-plain")
    config = ExportConfig("torch", size=(128, 160))
    program = whole_program(model, description_of(Origin(model, CLASSES), config))
    boxes, scores = on_device(program, torch.device("meta"))(torch.zeros(2, 3, 128, 160, device="meta"))
    assert (boxes.device.type, scores.device.type) == ("meta", "meta")


def test_operators_within_loops_are_counted() -> None:
    model = _model("atss-plain")
    config = ExportConfig("torch", "nms", size=(64, 96), batch=1)
    found = operators_of(whole_program(model, description_of(Origin(model, CLASSES), config)))
    # The one within is that of the loop's condition.
    assert (found["while_loop"], found["aten.any.default"]) == (1, 1)
    assert found["aten.conv2d.default"] > 10


def test_a_program_needs_nothing_of_this_package(tmp_path: Path) -> None:
    path = tmp_path / "model.pt2"
    engine = _engine(_model("atss-plain"), ExportConfig("torch", "nms", raw=True, size=(64, 96)), path)
    script = """
import sys, torch
sys.modules["tood"] = None
program = torch.export.load(sys.argv[1]).module()
print([list(output.shape) for output in program(torch.zeros(1, 50, 70, 3, dtype=torch.uint8))])
"""
    done = subprocess.run([sys.executable, "-c", script, path], capture_output=True, text=True, check=True)
    rows = engine.description.max_detections
    assert done.stdout.strip() == str([[1, rows, 4], [1, rows], [1, rows], [1]])


def test_an_earlier_export_of_a_fixed_batch_leaves_the_next_one_free() -> None:
    """Loops are compiled, and what was compiled before is looked at for whether it fits."""
    model = _model("atss-plain")
    for batch in (3, None):
        config = ExportConfig("torch", "nms", size=(64, 96), batch=batch)
        program = whole_program(model, description_of(Origin(model, CLASSES), config)).module()
    for batch in (1, 3, 4):
        assert len(program(torch.zeros(batch, 3, 64, 96), torch.zeros(batch, 4))[0]) == batch
