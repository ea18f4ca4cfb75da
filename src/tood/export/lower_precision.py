"""Convolutions in fp16 or int8; everything else of a network's graph stays in fp32."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from tood.engines.extras import needed

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto

# Parts of a network that may stay in floating point, what costs least first.
FLOAT_PARTS: tuple[tuple[str, ...], ...] = ((), ("head",), ("head", "neck"))
_CONVOLUTIONS = ["Conv"]
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
    kept = [node.name for node in proto.graph.node if part_of(node) in float_parts]
    with tempfile.TemporaryDirectory() as folder:
        source, result = Path(folder) / "fp32.onnx", Path(folder) / "int8.onnx"
        onnx.save(proto, source)
        quantization.quantize_static(
            str(source),
            str(result),
            _reader(quantization, images),
            quant_format=quantization.QuantFormat.QDQ,
            op_types_to_quantize=_CONVOLUTIONS,
            per_channel=True,
            # Without VNNI two products of full range do not fit 16 bits.
            reduce_range=not has_vnni(),
            nodes_to_exclude=kept,
            activation_type=quantization.QuantType.QUInt8,
            weight_type=quantization.QuantType.QInt8,
        )
        return onnx.load(result)


def part_of(node: NodeProto) -> str:
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
    try:
        flags = Path("/proc/cpuinfo").read_text(encoding="ascii", errors="replace")
    except OSError:
        return False
    return "vnni" in flags
