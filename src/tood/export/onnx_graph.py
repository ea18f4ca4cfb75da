"""From a network to an ONNX model that knows what it is."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from tood.engines import ExportedModel
from tood.engines.quiet import quiet
from tood.export.config import ExportConfig
from tood.export.network import DeformForm, ExportNetwork, export_dimensions, export_network
from tood.export.onnx_nodes import OnnxNodes
from tood.export.onnx_pictures import Laid, add_pictures
from tood.export.onnx_suppression import Dense, add_suppression, add_top_k
from tood.models import AnyDetector
from tood.models.common import TopKConfig

if TYPE_CHECKING:
    from onnx import ModelProto

# The network's input where the graph's own is whole pictures.
_PREPARED = "prepared/images"
_OUTPUTS = "network"


def deform_form(config: ExportConfig) -> DeformForm:
    """How deformable convolutions stand in a file: only ONNX Runtime is known to take ONNX's own operator."""
    known = config.format == "onnx" and config.target == "onnxruntime" and config.opset >= 19
    return "deform_conv" if known else "grid_sample"


def network_graph(model: AnyDetector, config: ExportConfig) -> ModelProto:
    """The network alone: `images` [B, 3, H, W] normalised -> boxes, scores and, where it judges boxes, quality."""
    network = export_network(model, deform_form(config))
    example, free = export_dimensions(model, config)
    with quiet("torch.onnx", "onnxscript"):
        program = torch.onnx.export(
            network,
            (example,),
            dynamo=True,
            input_names=["images"],
            output_names=list(network.names),
            dynamic_shapes={"images": free},
            opset_version=config.opset,
            verbose=False,
        )
    assert program is not None
    proto: ModelProto = program.model_proto
    _name_nodes(proto)
    _name_lengths(proto, network, config)
    return proto


def whole_graph(proto: ModelProto, description: ExportedModel) -> ModelProto:
    """A network's graph with what stands before and behind it, and its description; the given one is changed."""
    config = description.model
    own = config.postprocess
    laid: Laid | None = None
    if description.raw:
        laid = _with_pictures(proto, description)
    if description.raw or description.graph != "dense":
        judges = any(output.name == "quality" for output in proto.graph.output)
        _renamed_outputs(proto)
        after = OnnxNodes("postprocess")
        dense = _dense(after, judges, laid)
        if description.graph == "topk":
            assert isinstance(own, TopKConfig)
            add_top_k(after, dense, own, config.classes)
        elif description.graph == "nms":
            assert not isinstance(own, TopKConfig)
            windows = dense.windows if laid is not None else "windows"
            dense = dense._replace(windows=windows if own.clip else None)
            add_suppression(after, dense, own, config.classes, _levels(after, laid, config.strides))
        else:
            after.named(dense.boxes, "boxes")
            after.named(dense.scores, "scores")
            if dense.quality is not None:
                after.named(dense.quality, "quality")
        after.add_to(proto)
        _declare_outputs(proto, description, judges)
    if description.wants_windows:
        _declare_input(proto, "windows", "FLOAT", [_batch(description), 4])
    _describe(proto, description)
    return proto


def without_traces(proto: ModelProto) -> None:
    """Takes out what the exporter noted of each node: stacks of this machine's files, larger than a small network."""
    for node in proto.graph.node:
        del node.metadata_props[:]
    for value in proto.graph.value_info:
        del value.metadata_props[:]


def _batch(of: ExportConfig | ExportedModel) -> str | int:
    """The first length of inputs and outputs."""
    return "batch" if of.batch is None else of.batch


def _describe(proto: ModelProto, description: ExportedModel) -> None:
    from onnx import helper

    del proto.metadata_props[:]
    helper.set_model_props(proto, description.texts())
    proto.producer_name, proto.producer_version = "tood", description.version


def _with_pictures(proto: ModelProto, description: ExportedModel) -> Laid:
    """Whole pictures [B, H, W, 3] uint8 as the graph's input."""
    before = OnnxNodes("preprocess")
    laid = add_pictures(before, "images", description.network_input)
    before.named(laid.images, _PREPARED)
    for node in proto.graph.node:
        for number, name in enumerate(node.input):
            if name == "images":
                node.input[number] = _PREPARED
    before.add_to(proto, first=True)
    del proto.graph.input[:]
    _declare_input(proto, "images", "UINT8", [_batch(description), "height", "width", 3])
    return laid


def _dense(g: OnnxNodes, judges: bool, laid: Laid | None) -> Dense:
    """The network's outputs under their new names, boxes in the pictures' own pixels where these are whole."""
    boxes, scores = f"{_OUTPUTS}/boxes", f"{_OUTPUTS}/scores"
    quality = f"{_OUTPUTS}/quality" if judges else None
    if laid is None:
        return Dense(boxes, scores, quality)
    return Dense(g("Div", g("Sub", boxes, laid.offset), laid.scale), scores, quality, laid.window)


def _levels(g: OnnxNodes, laid: Laid | None, strides: tuple[int, ...]) -> list[str]:
    """[1] int64 the number of priors of each level: cells of maps whose sides are rounded up."""
    height, width = (laid.height, laid.width) if laid else (g.size("images", 2), g.size("images", 3))

    def cells(side: str, stride: int) -> str:
        return g("Div", g("Add", side, g.integer([stride - 1])), g.integer([stride]))

    return [g("Mul", cells(height, stride), cells(width, stride)) for stride in strides]


def _renamed_outputs(proto: ModelProto) -> None:
    """Frees the names of the network's outputs, which the graph's own are to have."""
    names = {output.name: f"{_OUTPUTS}/{output.name}" for output in proto.graph.output}
    for node in proto.graph.node:
        for values in (node.input, node.output):
            for number, name in enumerate(values):
                values[number] = names.get(name, name)
    for value in proto.graph.value_info:
        value.name = names.get(value.name, value.name)


def _declare_outputs(proto: ModelProto, description: ExportedModel, judges: bool) -> None:
    rows = description.max_detections
    classes, batch = description.model.classes, _batch(description)
    del proto.graph.output[:]
    if description.graph == "dense":
        shapes: dict[str, tuple[str, list[str | int]]] = {
            "boxes": ("FLOAT", [batch, "priors", 4]),
            "scores": ("FLOAT", [batch, "priors", classes]),
        }
        if judges:
            shapes["quality"] = ("FLOAT", [batch, "priors"])
    else:
        shapes = {
            "boxes": ("FLOAT", [batch, rows, 4]),
            "scores": ("FLOAT", [batch, rows]),
            "labels": ("INT64", [batch, rows]),
            "counts": ("INT64", [batch]),
        }
    from onnx import TensorProto, helper

    proto.graph.output.extend(
        helper.make_tensor_value_info(name, getattr(TensorProto, kind), shape) for name, (kind, shape) in shapes.items()
    )


def _declare_input(proto: ModelProto, name: str, kind: str, shape: list[str | int]) -> None:
    from onnx import TensorProto, helper

    proto.graph.input.append(helper.make_tensor_value_info(name, getattr(TensorProto, kind), shape))


def _name_lengths(proto: ModelProto, network: ExportNetwork, config: ExportConfig) -> None:
    """Gives the free lengths of inputs and outputs names that a person understands."""
    batch, size = _batch(config), config.size
    sides: list[str | int] = ["height", "width"] if size is None else list(size)
    (images,) = proto.graph.input
    _set_shape(images, [batch, 3, *sides])
    for output in proto.graph.output:
        length = len(output.type.tensor_type.shape.dim)
        shape: list[str | int | None] = [batch, "priors", None]
        if size is not None:
            shape[1] = None
        _set_shape(output, shape[:length])
    assert len(proto.graph.output) == len(network.names)


def _set_shape(value: object, shape: list[str | int] | list[str | int | None]) -> None:
    for dimension, wanted in zip(value.type.tensor_type.shape.dim, shape, strict=True):  # type: ignore[attr-defined]
        if isinstance(wanted, int):
            dimension.dim_value = wanted
        elif wanted is not None:
            dimension.dim_param = wanted


def _name_nodes(proto: ModelProto) -> None:
    """A name for each node, as quantisers want it: they leave nodes out by name."""
    for number, node in enumerate(proto.graph.node):
        node.name = node.name or f"{node.op_type}_{number}"
