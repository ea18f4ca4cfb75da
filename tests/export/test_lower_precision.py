"""Convolutions in int8, on a graph of three nodes as backbones of depthwise convolutions have them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from onnx import ModelProto, TensorProto, helper, numpy_helper

from tood.engines.onnx_file import onnx_session
from tood.export.lower_precision import DEPTHWISE, has_vnni, in_int8, left_in_float
from tood.export.openvino_model import quantised, to_openvino

CHANNELS = 8
DRAW = np.random.default_rng(0)
IMAGES = [DRAW.normal(size=(1, 3, 12, 12)).astype(np.float32) for _ in range(8)]


@pytest.fixture(scope="module")
def proto() -> ModelProto:
    """A convolution whose values go far below zero, ReLU6, a depthwise convolution."""
    weights = {
        "w1": DRAW.normal(size=(CHANNELS, 3, 1, 1)),
        "b1": np.full(CHANNELS, -20.0),
        "w2": DRAW.normal(size=(CHANNELS, 1, 3, 3)),
        "b2": np.zeros(CHANNELS),
        "low": np.array(0.0),
        "high": np.array(6.0),
    }
    weights["b1"][:4] = 2.0
    nodes = [
        helper.make_node("Conv", ["images", "w1", "b1"], ["x"], "expand"),
        helper.make_node("Clip", ["x", "low", "high"], ["y"], "relu6"),
        helper.make_node("Conv", ["y", "w2", "b2"], ["out"], "depthwise", group=CHANNELS, pads=[1, 1, 1, 1]),
    ]
    graph = helper.make_graph(
        nodes,
        "block",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, (1, 3, 12, 12))],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT, (1, CHANNELS, 12, 12))],
        [numpy_helper.from_array(value.astype(np.float32), name) for name, value in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def _run(proto: ModelProto) -> NDArray[np.float32]:
    session = onnx_session(proto.SerializeToString(), torch.device("cpu"))
    return np.concatenate([session.run(None, {"images": image})[0] for image in IMAGES])


def test_what_a_relu_cuts_off_takes_no_range_of_int8(proto: ModelProto) -> None:
    """Of the range -25 to 6 one step is five times one of 0 to 6."""
    result = in_int8(proto, IMAGES, ())
    assert "Clip" not in {node.op_type for node in result.graph.node}
    wanted = _run(proto)
    assert np.abs(_run(result) - wanted).mean() < 0.008 * np.abs(wanted).max()


def test_depthwise_convolutions_are_left_in_float(proto: ModelProto) -> None:
    assert left_in_float(proto, ()) == set()
    assert left_in_float(proto, (DEPTHWISE,)) == {"depthwise"}
    result = in_int8(proto, IMAGES, (DEPTHWISE,))
    weights = {tensor.name: tensor.data_type for tensor in result.graph.initializer}
    assert weights["w2"] == TensorProto.FLOAT
    assert "w1" not in weights


def test_openvinos_weights_have_their_full_range_where_the_processor_can(proto: ModelProto) -> None:
    model = quantised(to_openvino(proto), proto, [{"images": image} for image in IMAGES], ())
    largest = [
        int(np.abs(operation.get_data().astype(np.int32)).max())
        for operation in model.get_ordered_ops()
        if operation.get_type_name() == "Constant" and operation.get_element_type().get_type_name() == "i8"
    ]
    assert largest
    assert all(value > 120 if has_vnni() else value <= 64 for value in largest), largest
