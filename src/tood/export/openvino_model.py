"""From an ONNX model to OpenVINO's."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from tood.engines import ExportedModel
from tood.engines.extras import needed
from tood.engines.openvino_file import METADATA, WHOLE
from tood.engines.quiet import quiet
from tood.export.lower_precision import has_vnni, left_in_float

if TYPE_CHECKING:
    from onnx import ModelProto

# OpenVINO's operators that are quantised; all others, box decoding and post-processing among them, are left alone.
_QUANTISED = {"Convolution", "GroupConvolution"}


def to_openvino(proto: ModelProto) -> Any:
    """OpenVINO's model of an ONNX model."""
    openvino = needed("openvino", "openvino", "to write OpenVINO's files")
    return openvino.Core().read_model(proto.SerializeToString())


def save_openvino(model: Any, path: Path, description: ExportedModel) -> None:
    """Writes the .xml and, beside it, the .bin; with its description in the metadata."""
    openvino = needed("openvino", "openvino", "to write OpenVINO's files")
    for key, value in description.texts().items():
        model.set_rt_info(value, [METADATA, key])
    model.set_rt_info(json.dumps(description.texts()), [METADATA, WHOLE])
    openvino.save_model(model, str(path), compress_to_fp16=description.precision == "fp16")


def quantised(
    model: Any, proto: ModelProto, inputs: Sequence[dict[str, NDArray[Any]]], float_parts: tuple[str, ...]
) -> Any:
    """The model with its convolutions in int8, by NNCF.

    Args:
        model: OpenVINO's.
        proto: the ONNX model that it is of, whose nodes tell what part they are of.
        inputs: of the graph, by name, to learn the ranges of values from.
        float_parts: parts of the network that are left in floating point.
    """
    # Else it would tell its makers of each use.
    os.environ.setdefault("NNCF_CI", "1")
    nncf = needed("nncf", "openvino", "to write int8 for OpenVINO")
    kept = left_in_float(proto, float_parts)
    operations = list(model.get_ordered_ops())
    names = [
        operation.get_friendly_name()
        for operation in operations
        if operation.get_type_name() in _QUANTISED and _origin(operation.get_friendly_name()) in kept
    ]
    others = sorted({operation.get_type_name() for operation in operations} - _QUANTISED)
    ignored = nncf.IgnoredScope(names=names, types=others, validate=False)
    advanced = needed("nncf.quantization.advanced_parameters", "openvino", "to write int8 for OpenVINO")
    # By itself NNCF halves the range of some weights for processors without VNNI: of a network with depthwise
    # convolutions that costs 2 % of AP.
    fix = advanced.OverflowFix.DISABLE if has_vnni() else advanced.OverflowFix.ENABLE
    with quiet("nncf"):
        return nncf.quantize(
            model,
            nncf.Dataset(list(inputs)),
            # Ranges of activations need not lie around zero: behind a ReLU none is below it.
            preset=nncf.QuantizationPreset.MIXED,
            subset_size=len(inputs),
            ignored_scope=ignored,
            fast_bias_correction=True,
            advanced_parameters=advanced.AdvancedQuantizationParameters(overflow_fix=fix),
        )


def _origin(name: str) -> str:
    """The ONNX node that an operation is of, whose name it has, or begins with."""
    return name.partition("/WithoutBiases")[0]


def operators(model: Any) -> dict[str, int]:
    """How often a model of OpenVINO's has each operator."""
    return dict(sorted(Counter(operation.get_type_name() for operation in model.get_ordered_ops()).items()))
