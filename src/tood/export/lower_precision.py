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
# What is computed in fp16 besides, where both neighbours are: nothing that coordinates or probabilities come from.
_HALF = {"Conv", "Relu", "MaxPool", "Clip"}
_CONVOLUTIONS = ["Conv"]


def in_half(proto: ModelProto) -> ModelProto:
    """The network's graph with its convolutions in fp16; inputs and outputs stay fp32."""
    half = needed("onnxruntime.transformers.float16", "export", "to write fp16")
    blocked = [node.name for node in proto.graph.node if node.op_type not in _HALF]
    result: ModelProto = half.convert_float_to_float16(proto, keep_io_types=True, node_block_list=blocked)
    return result


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
            reduce_range=not _has_vnni(),
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


def _has_vnni() -> bool:
    try:
        flags = Path("/proc/cpuinfo").read_text(encoding="ascii", errors="replace")
    except OSError:
        return False
    return "vnni" in flags
