"""Every family's every kind of layer, exported, on ONNX Runtime and OpenVINO.

Where sizes are free, and be it that of the batch alone, PyTorch's exporter takes several times as long: one network of
either kind of neck is exported so, one with a free batch, and of the others graphs of one size and batch.
`python -m benchmarks.export_parity` does it with all named models and free sizes.
"""

from __future__ import annotations

import json
import math
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import onnx
import pytest
import torch

from narrow_models import EXAMPLES, lively
from tood.engines import Engine, open_exported
from tood.engines.onnx_file import onnx_session, session_run
from tood.export import Origin, description_of
from tood.export.config import ExportConfig
from tood.export.onnx_graph import network_graph, whole_graph
from tood.export.openvino_model import save_openvino, to_openvino
from tood.export.parity import MOST_UNMATCHED, TOLERANCES, compare
from tood.export.sample_pictures import pictures_of
from tood.inference import Detector
from tood.models import AnyDetector, AnyModelConfig, build_model
from tood.models.backbones import ResNetConfig
from tood.models.necks import FPNConfig
from tood.models.tood import TOODConfig

CLASSES = tuple("abcdefg")
DEFORMABLE = tuple(name for name in EXAMPLES if "deformable" in name)
FREE = ("tood-plain", "ppyoloe-plain")
FREE_BATCH = (*FREE, "atss-plain")
SIZE = (96, 128)
# GridSample is what both engines know.
FREE_SIZE, FIXED_SIZE = (ExportConfig(target="tensorrt", size=size) for size in (None, SIZE))
BATCH = 2


class Made(NamedTuple):
    """A network, and its graph alone."""

    model: AnyDetector
    proto: onnx.ModelProto
    config: ExportConfig

    def engine(self, config: ExportConfig) -> Engine:
        """The whole graph of that kind, in ONNX Runtime."""
        proto = onnx.ModelProto()
        proto.CopyFrom(self.proto)
        description = description_of(Origin(self.model, CLASSES), config)
        whole = whole_graph(proto, description)
        session = onnx_session(whole.SerializeToString(), torch.device("cpu"))
        return Engine(description, "onnxruntime", session_run(session))


def _network(name: str, config: ExportConfig) -> AnyModelConfig:
    """The example; of free sizes, which take the exporter 10 s a level of a T-Head, TOOD has a level of either kind."""
    example = EXAMPLES[name]
    if config.size is not None or not isinstance(example, TOODConfig):
        return example
    assert isinstance(example.backbone, ResNetConfig)
    assert isinstance(example.neck, FPNConfig)
    # One is of the backbone's, the other the neck's own.
    return replace(example, backbone=replace(example.backbone, outputs=(1,)), neck=replace(example.neck, levels=2))


@cache
def _made(name: str, config: ExportConfig) -> Made:
    model = lively(build_model(_network(name, config)))
    if name not in FREE_BATCH:
        config = replace(config, batch=BATCH)
    return Made(model, network_graph(model, config), config)


@pytest.fixture(scope="module", params=EXAMPLES)
def made(request: pytest.FixtureRequest) -> Made:
    return _made(request.param, FREE_SIZE if request.param in FREE else FIXED_SIZE)


def _sizes(made: Made) -> list[tuple[int, int, int]]:
    """Batches, heights and widths: among free ones maps of one row, of one column and of one cell."""
    model, size = made.model, made.config.size
    if size is not None:
        # Of a fixed batch: fewer, more and as many.
        return [(batch, *size) for batch in (1, 2, 3)]
    divisor = model.config.input.divisor
    side = math.lcm(model.config.strides[-1], divisor)
    return [(1, divisor, divisor), (2, divisor, 3 * divisor), (3, side + divisor, divisor), (2, side, 2 * side)]


def _assert_same(engine: Engine, made: Made) -> None:
    model = made.model
    for batch, height, width in _sizes(made):
        images = torch.randn(batch, 3, height, width, generator=torch.Generator().manual_seed(height + width))
        with torch.inference_mode():
            wanted = model(images)
        given = engine.predictions(images, torch.zeros(batch, 4))
        torch.testing.assert_close(given.scores, wanted.probabilities(), rtol=1e-3, atol=1e-4)
        torch.testing.assert_close(given.boxes, wanted.boxes, rtol=1e-3, atol=0.05)
        for part in ("centres", "sizes", "strides"):
            assert torch.equal(getattr(given.priors, part), getattr(wanted.priors, part))
        assert given.priors.shapes == wanted.priors.shapes
        assert (given.quality is None) == (wanted.quality is None)
        if given.quality is not None and wanted.quality is not None:
            torch.testing.assert_close(given.quality.sigmoid(), wanted.quality.sigmoid(), rtol=1e-3, atol=1e-4)


def test_onnx_runtime_gives_what_pytorch_gives(made: Made) -> None:
    _assert_same(made.engine(made.config), made)


def test_openvino_gives_what_pytorch_gives(made: Made, tmp_path: Path) -> None:
    proto = onnx.ModelProto()
    proto.CopyFrom(made.proto)
    description = description_of(Origin(made.model, CLASSES), replace(made.config, format="openvino"))
    save_openvino(to_openvino(whole_graph(proto, description)), tmp_path / "model.xml", description)
    engine = open_exported(tmp_path / "model.xml")
    assert engine.description == description
    _assert_same(engine, made)


@pytest.mark.parametrize("raw", [False, True])
def test_suppression_and_whole_pictures_within_the_graph(made: Made, raw: bool) -> None:
    engine = made.engine(replace(made.config, graph="nms", raw=raw))
    cases = compare(made.model, engine, pictures_of(None, 3))
    assert {case.batch for case in cases} == ({1, 2, 3} if made.config.batch is None else {made.config.batch})
    compared = sum(case.compared for case in cases)
    assert compared > 100
    # What a certificate lets pass.
    assert sum(case.unmatched for case in cases) <= MOST_UNMATCHED * compared
    assert max(case.boxes for case in cases) <= TOLERANCES["fp32"].pixels
    assert max(case.scores for case in cases) <= TOLERANCES["fp32"].score


@pytest.mark.parametrize("name", DEFORMABLE)
def test_deformable_convolutions_as_one_operator(name: str) -> None:
    made = _made(name, ExportConfig(size=SIZE))
    assert "DeformConv" in {node.op_type for node in made.proto.graph.node}
    _assert_same(made.engine(made.config), made)


def test_a_fixed_size_is_in_the_file() -> None:
    made = _made("atss-plain", FIXED_SIZE)
    engine = made.engine(made.config)
    (images,) = made.proto.graph.input
    assert [dimension.dim_value for dimension in images.type.tensor_type.shape.dim[1:]] == [3, *SIZE]
    cases = compare(made.model, engine, pictures_of(None, 2))
    assert {case.input for case in cases} == {SIZE}
    assert max(case.boxes for case in cases) < 0.01


def test_the_file_tells_what_it_is() -> None:
    made = _made("yolox-plain", FIXED_SIZE)
    description = description_of(Origin(made.model, CLASSES, "x", "Apache-2.0"), made.config)
    proto = onnx.ModelProto()
    proto.CopyFrom(made.proto)
    proto = whole_graph(proto, description)
    texts = {entry.key: entry.value for entry in proto.metadata_props}
    assert json.loads(texts["class_names"]) == list(CLASSES)
    assert (texts["family"], texts["licence"], texts["graph"]) == ("yolox", "Apache-2.0", "dense")
    assert (json.loads(texts["input"])["channels"], json.loads(texts["size"])) == ("bgr", list(SIZE))
    assert json.loads(texts["postprocess"])["best_class"] is True
    assert type(description).from_texts(texts, Path("x.onnx")) == description
    assert [output.name for output in proto.graph.output] == ["boxes", "scores", "quality"]


def test_a_batch_of_unlike_whole_pictures() -> None:
    """They cannot lie in one array: each is looked at alone, and what it gets does not depend on the others."""
    made = _made("tood-plain", FREE_SIZE)
    detector = Detector.from_engine(made.engine(replace(made.config, raw=True, graph="nms")))
    small, large = (np.random.default_rng(0).integers(0, 256, shape, np.uint8) for shape in ((40, 60, 3), (90, 50, 3)))
    together, alone = detector([small, large], batch_size=2), [detector(small), detector(large)]
    for one, other in zip(together, alone, strict=True):
        assert len(one)
        torch.testing.assert_close(one.boxes, other.boxes)
