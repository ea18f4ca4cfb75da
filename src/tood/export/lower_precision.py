"""Convolutions in fp16 or int8; everything else of a network's graph stays in fp32."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from tood.engines.extras import needed
from tood.engines.quiet import quiet
from tood.machine import processor_flags
from tood.whole_file import scratch_folder

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto

DEPTHWISE = "depthwise convolutions"
# Parts of a network that may stay in floating point, what costs least first.
FLOAT_PARTS: tuple[tuple[str, ...], ...] = (
    (),
    (DEPTHWISE,),
    (DEPTHWISE, "head"),
    (DEPTHWISE, "head", "neck"),
)
_CONVOLUTIONS = ["Conv"]
# Activations behind them become the limits of their 8 bits: values that they would cut off take none of the range.
_CUT_OFF = ["Clip", "Relu"]
# Endings of names of values in fp16.
_HALF = "/fp16"


def in_half(proto: ModelProto) -> ModelProto:
    """The network's graph with its convolutions, and their weights, in fp16; what is between them stays in fp32.

    The usual converters put every value into fp16 between operators: of a picture of 1,000 pixels a coordinate is then
    half a pixel off.
    """
    from onnx import TensorProto, numpy_helper

    result = type(proto)()
    result.CopyFrom(proto)
    graph = result.graph
    weights = {tensor.name: tensor for tensor in graph.initializer}
    taken: set[str] = set()
    nodes: list[NodeProto] = []
    for own in graph.node:
        node = type(own).FromString(own.SerializeToString())  # a copy: the graph's own go when it is emptied
        if node.op_type in _CONVOLUTIONS:
            for number, name in enumerate(node.input):
                node.input[number] = f"{name}{_HALF}"
                if name not in taken and name not in weights:
                    nodes.append(_cast(name, f"{name}{_HALF}", TensorProto.FLOAT16))
                taken.add(name)
            output = node.output[0]
            # Not the name that it has as the next convolution's input.
            node.output[0] = f"{output}{_HALF}/result"
            nodes += [node, _cast(node.output[0], output, TensorProto.FLOAT)]
        else:
            nodes.append(node)
    used = {name for node in nodes for name in node.input}
    kept = [tensor for tensor in graph.initializer if tensor.name in used]
    for name in taken & weights.keys():
        half = numpy_helper.to_array(weights[name]).astype(np.float16)
        kept.append(numpy_helper.from_array(half, f"{name}{_HALF}"))
    del graph.node[:], graph.value_info[:]
    graph.node.extend(nodes)
    # Copies: what the list of initialisers holds goes when that is emptied.
    copies = [type(tensor).FromString(tensor.SerializeToString()) for tensor in kept]
    del graph.initializer[:]
    graph.initializer.extend(copies)
    return result


def _cast(source: str, target: str, to: int) -> NodeProto:
    from onnx import helper

    return helper.make_node("Cast", [source], [target], name=f"{target}/cast", to=to)


def in_int8(proto: ModelProto, images: Sequence[NDArray[np.float32]], float_parts: tuple[str, ...]) -> ModelProto:
    """The network's graph with its convolutions in int8, by ONNX Runtime's static quantisation.

    Args:
        proto: the network's graph.
        images: [1, 3, H, W] prepared images to learn the ranges of values from.
        float_parts: parts of the network that are left in floating point.
    """
    import onnx

    quantization = needed("onnxruntime.quantization", "export", "to write int8")
    with scratch_folder() as folder:
        source, result = folder / "fp32.onnx", folder / "int8.onnx"
        onnx.save(proto, source)
        with quiet("root"):  # which of its steps it advises to run before
            quantization.quantize_static(
                str(source),
                str(result),
                _reader(quantization, images),
                quant_format=quantization.QuantFormat.QDQ,
                op_types_to_quantize=_CONVOLUTIONS + _CUT_OFF,
                per_channel=True,
                # Without VNNI two products of full range do not fit 16 bits.
                reduce_range=not has_vnni(),
                nodes_to_exclude=sorted(left_in_float(proto, float_parts)),
                activation_type=quantization.QuantType.QUInt8,
                weight_type=quantization.QuantType.QInt8,
                # A mean of the images' ranges: the whole range is that of one odd value.
                extra_options={"CalibMovingAverage": True, "CalibMovingAverageConstant": 0.05},
            )
        return onnx.load(result)


def left_in_float(proto: ModelProto, float_parts: tuple[str, ...]) -> set[str]:
    """Names of the nodes of these parts of the network."""
    # [outputs, inputs of a group, height, width]
    shapes = {tensor.name: list(tensor.dims) for tensor in proto.graph.initializer}

    def depthwise(node: NodeProto) -> bool:
        shape = shapes.get(node.input[1], []) if node.op_type in _CONVOLUTIONS else []
        return len(shape) > 1 and shape[1] == 1 and shape[0] > 1

    return {
        node.name
        for node in proto.graph.node
        if _part_of(node) in float_parts or (DEPTHWISE in float_parts and depthwise(node))
    }


def _part_of(node: NodeProto) -> str:
    """backbone, neck or head, as the exporter noted it; empty where a node is of none."""
    for property in node.metadata_props:
        if property.key.endswith("name_scopes"):
            for part in ("backbone", "neck", "head"):
                if f"'network.{part}" in property.value:
                    return part
    return ""


def _reader(quantization: Any, images: Sequence[NDArray[np.float32]]) -> Any:
    class Images(quantization.CalibrationDataReader):  # type: ignore[misc]
        """The images one after the other."""

        def __init__(self) -> None:
            self.rest: Iterator[NDArray[np.float32]] = iter(images)

        def get_next(self) -> dict[str, NDArray[np.float32]] | None:
            image = next(self.rest, None)
            return None if image is None else {"images": image}

    return Images()


def has_vnni() -> bool:
    """Whether this processor multiplies 8-bit numbers of full range without overflow."""
    return any("vnni" in flag for flag in processor_flags()[1])
