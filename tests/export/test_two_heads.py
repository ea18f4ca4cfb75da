"""A network of two heads, one of which gives each object once: which of them a file shows, and is compared with."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import onnx
import pytest
import torch
from torch import Tensor, nn

from narrow_models import EXAMPLES, lively
from tood.choices import ExportFormat, ExportGraph
from tood.engines import open_exported
from tood.errors import ToodError
from tood.export import ExportConfig, Origin, description_of, export_model, onnx_graph
from tood.export.config import SUFFIXES
from tood.inference import postprocess
from tood.input import InputConfig
from tood.models import AnyDetector, AnyPostprocessConfig, PostprocessConfig, build_model
from tood.models.atss import ATSSConfig
from tood.models.common import TopKConfig
from tood.structures import DensePredictions

SIZE, CLASSES = (64, 96), ("cat", "dog")
NMS = PostprocessConfig(score_threshold=0.3, max_detections=20)
TOP_K = TopKConfig(score_threshold=0.3, max_detections=20)


class TwoHeads(nn.Module):
    """A head that gives objects many times, and beside it another one with weights of its own."""

    def __init__(self, head: nn.Module) -> None:
        super().__init__()
        self.many, self.one = head, copy.deepcopy(head)
        generator = torch.Generator().manual_seed(1)
        for module in self.one.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.normal_(module.weight, std=module.weight[0].numel() ** -0.5, generator=generator)

    def forward(self, maps: list[Tensor]) -> DensePredictions:
        """Maps of each level -> the first head's predictions, which carry the second's."""
        predictions: DensePredictions = self.many(maps)
        return replace(predictions, one_to_one=self.one(maps))


def _network(config: AnyPostprocessConfig) -> AnyDetector:
    plain = EXAMPLES["atss-plain"]
    assert isinstance(plain, ATSSConfig)
    neck, head = replace(plain.neck, levels=2), replace(plain.head, tower_layers=1)
    model = lively(
        build_model(replace(plain, classes=2, neck=neck, head=head, input=InputConfig(*SIZE), postprocess=config))
    )
    model.head = TwoHeads(model.head).eval()
    return model


@pytest.fixture(scope="module", autouse=True)
def one_graph() -> Iterator[None]:
    """PyTorch's exporter takes seconds: the network's own graph is made once for each configuration of one kind."""
    made: dict[str, onnx.ModelProto] = {}

    def network_graph(model: AnyDetector, config: ExportConfig) -> onnx.ModelProto:
        kind = model.config.postprocess.kind
        made[kind] = made.get(kind) or onnx_graph.network_graph(model, config)
        copied = onnx.ModelProto()
        copied.CopyFrom(made[kind])
        return copied

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tood.export.export.network_graph", network_graph)
        yield


@pytest.mark.parametrize(("own", "graph", "to", "read"), [
    (NMS, "topk", "onnx", "one"),
    (TOP_K, "dense", "onnx", "one"),
    (TOP_K, "dense", "torch", "one"),
    (NMS, "nms", "onnx", "many"),
    (NMS, "dense", "onnx", "many"),
])  # fmt: skip
def test_a_file_shows_the_head_of_its_graph_and_is_compared_with_it(
    own: AnyPostprocessConfig, graph: ExportGraph, to: ExportFormat, read: str, tmp_path: Path
) -> None:
    model, out = _network(own), tmp_path / f"model{SUFFIXES[to]}"
    # Beyond the tolerance, as beside the other head, nothing would be written.
    certificate = export_model(Origin(model, CLASSES), out, ExportConfig(to, graph, size=SIZE, batch=2))
    assert sum(case.compared for case in certificate.cases) > 20
    assert model.config.postprocess == own

    engine = open_exported(out)
    images = torch.randn(2, 3, *SIZE, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        maps = model.neck(model.backbone(images))
        heads = {name: getattr(model.head, name)(maps) for name in ("many", "one")}
        given = engine.predictions(images, torch.tensor([[0.0, 0.0, SIZE[1], SIZE[0]]] * 2))
    if graph == "dense":
        torch.testing.assert_close(given.boxes, heads[read].boxes, rtol=1e-3, atol=0.05)
        torch.testing.assert_close(given.scores, heads[read].probabilities(), rtol=1e-3, atol=1e-4)
    config = NMS if read == "many" else TOP_K
    for one, other in zip(
        postprocess(given, None, engine.description.postprocess), postprocess(heads[read], None, config), strict=True
    ):
        assert len(one.boxes) == len(other.boxes) > 5
        torch.testing.assert_close(one.scores, other.scores, rtol=1e-3, atol=1e-4)


def test_without_such_a_head_or_without_suppression_the_graphs_are_refused() -> None:
    with pytest.raises(ToodError, match="--graph topk"):
        description_of(Origin(_network(TOP_K), CLASSES), ExportConfig(graph="nms", size=SIZE))
    alone = _network(NMS)
    alone.head = alone.head.many
    with pytest.raises(ToodError, match="take --graph nms"):
        description_of(Origin(alone, CLASSES), ExportConfig(graph="topk", size=SIZE))
