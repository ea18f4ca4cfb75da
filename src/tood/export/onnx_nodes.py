"""ONNX nodes written one after the other, as arithmetic is: each call gives the names of what the node gives."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto, TensorProto

Attribute: TypeAlias = int | float | str | Sequence[int]
Constant: TypeAlias = int | float | Sequence[int] | Sequence[float]


class OnnxNodes:
    """Nodes that are to be added to a model, in their order.

    Args:
        prefix: of all names, by which these nodes are told from the network's.
    """

    def __init__(self, prefix: str) -> None:
        self.prefix = prefix
        self.nodes: list[NodeProto] = []
        self.constants: dict[tuple[str, str], TensorProto] = {}

    def several(self, count: int, operator: str, *inputs: str, **attributes: Attribute) -> list[str]:
        """A node with so many outputs; attributes are the operator's own."""
        from onnx import helper

        name = f"{self.prefix}/{operator}_{len(self.nodes)}"
        outputs = [f"{name}:{number}" for number in range(count)]
        node = helper.make_node(operator, list(inputs), outputs, name=name)
        node.attribute.extend(helper.make_attribute(key, value) for key, value in attributes.items())
        self.nodes.append(node)
        return outputs

    def __call__(self, operator: str, *inputs: str, **attributes: Attribute) -> str:
        """A node with one output."""
        return self.several(1, operator, *inputs, **attributes)[0]

    def named(self, source: str, name: str) -> None:
        """Gives a value a name of its own, as a graph's outputs have."""
        from onnx import helper

        self.nodes.append(helper.make_node("Identity", [source], [name], name=f"{self.prefix}/{name}"))

    def constant(self, value: Constant, dtype: type[np.generic]) -> str:
        """A constant, 0-dimensional for a number."""
        from onnx import numpy_helper

        array = np.asarray(value, dtype)
        key = (repr(array.tolist()), array.dtype.str + str(array.shape))
        if key not in self.constants:
            self.constants[key] = numpy_helper.from_array(array, f"{self.prefix}/constant_{len(self.constants)}")
        return self.constants[key].name

    def integer(self, value: int | Sequence[int]) -> str:
        """An int64 constant."""
        return self.constant(value, np.int64)

    def real(self, value: float | Sequence[float]) -> str:
        """A float32 constant."""
        return self.constant(value, np.float32)

    def cast(self, value: str, dtype: type[np.generic]) -> str:
        """The values in another type."""
        from onnx import helper

        return self("Cast", value, to=helper.np_dtype_to_tensor_dtype(np.dtype(dtype)))

    def size(self, value: str, axis: int) -> str:
        """[1] int64, the length of one axis."""
        return self("Shape", value, start=axis, end=axis + 1)

    def join(self, *parts: str) -> str:
        """One-dimensional values, one after the other."""
        return self("Concat", *parts, axis=0)

    def reshape(self, value: str, shape: str | Sequence[int]) -> str:
        """Of another shape; 0 keeps a length, -1 is what is left."""
        return self("Reshape", value, shape if isinstance(shape, str) else self.integer(shape))

    def columns(self, value: str, start: int, end: int) -> str:
        """A part of the last axis."""
        return self("Slice", value, self.integer([start]), self.integer([end]), self.integer([-1]))

    def add_to(self, model: ModelProto, *, first: bool = False) -> None:
        """Puts the nodes behind a model's own, or before them."""
        graph = model.graph
        own = list(graph.node)
        del graph.node[:]
        graph.node.extend([*self.nodes, *own] if first else [*own, *self.nodes])
        graph.initializer.extend(self.constants.values())
