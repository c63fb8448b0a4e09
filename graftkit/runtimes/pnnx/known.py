"""What is known of a file whose sizes are fixed: shapes, constants, what makes a value."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, field

import numpy as np
import onnx
from onnx import numpy_helper

from graftkit.runtimes.pnnx.truths import truths_of

Shape = tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Known:
    """Facts by the names of values.

    Attributes:
        shapes: a size that is not known is zero.
        kinds: of what numbers a value is, as in onnx.TensorProto.
        constants: initializers, and what Constant nodes hold.
        makers: the node that makes a value.
        truths: truth values that can be numbers.
        mark: what stands behind a value's name in the names of new ones, so that none is taken.
        lists: constants that new nodes read.
    """

    shapes: Mapping[str, Shape]
    kinds: Mapping[str, int]
    constants: Mapping[str, onnx.TensorProto]
    makers: Mapping[str, onnx.NodeProto]
    truths: frozenset[str]
    mark: str
    lists: list[onnx.TensorProto] = field(default_factory=list)

    @classmethod
    def of(cls, proto: onnx.ModelProto) -> Known:
        """What a model says, and what onnx infers."""
        graph = onnx.shape_inference.infer_shapes(proto, data_prop=True).graph
        values = (*graph.input, *graph.value_info, *graph.output)
        shapes = {value.name: _shape(value) for value in values}
        kinds = {value.name: value.type.tensor_type.elem_type for value in values}
        constants = {tensor.name: tensor for tensor in graph.initializer}
        constants |= {node.output[0]: option.t for node in graph.node if node.op_type == "Constant"
                      for option in node.attribute if option.name == "value"}  # fmt: skip
        makers = {name: node for node in graph.node for name in node.output}
        whole = {name: kind for name, kind in kinds.items() if shapes[name] and all(shapes[name])}
        truths = truths_of(graph, whole, constants)
        mark = _mark({*makers, *constants, *kinds}, set(makers))
        return cls({name: shape for name, shape in shapes.items() if shape}, kinds, constants, makers, truths, mark)

    def base(self, node: onnx.NodeProto) -> str:
        """What the names of new values in a node's place begin with; a dot follows."""
        return f"{node.output[0]}{self.mark}"

    def numbers(self, node: onnx.NodeProto, place: int) -> list[int] | None:
        """The whole numbers of a constant input, None where it is another."""
        tensor = self.constants.get(node.input[place]) if place < len(node.input) else None
        if tensor is None or tensor.data_type not in (onnx.TensorProto.INT64, onnx.TensorProto.INT32):
            return None
        return [int(number) for number in np.ravel(numpy_helper.to_array(tensor))]

    def listed(self, name: str, numbers: Sequence[int]) -> str:
        """The name of a constant list that new nodes can read."""
        return self.held(np.array(numbers, np.int64), name)

    def held(self, numbers: np.ndarray, name: str) -> str:
        """The name of a constant that new nodes can read."""
        self.lists.append(numpy_helper.from_array(numbers, name))
        return name

    def maker(self, name: str, operator: str) -> onnx.NodeProto | None:
        """The node that makes a value, where it is of that kind."""
        node = self.makers.get(name)
        return node if node is not None and node.op_type == operator else None


def _mark(names: Set[str], made: Set[str]) -> str:
    """So many underscores that no name begins with one that is made, these, and a dot."""
    mark = ""
    while any(_begins(name, made, f"{mark}.") for name in names):
        mark += "_"
    return mark


def _begins(name: str, made: Set[str], mark: str) -> bool:
    return any(name[: found.start()] in made for found in re.finditer(re.escape(mark), name))


def _shape(value: onnx.ValueInfoProto) -> Shape:
    """Empty where it is not known; a value without axes has none to speak of, either."""
    return tuple(size.dim_value for size in value.type.tensor_type.shape.dim)
