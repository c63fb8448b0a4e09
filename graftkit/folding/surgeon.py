"""To graphsurgeon and back, with large weights left where they are."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import onnx
import onnx_graphsurgeon as gs
from onnx import helper
from onnx_graphsurgeon.ir.tensor import LazyValues
from onnx_graphsurgeon.logger import G_LOGGER

from graftkit.folding.ports import graphs_of
from graftkit.folding.written import LARGE, Load, Written, is_apart, location, reference


class Kept(LazyValues):  # type: ignore[misc]
    """The values of a constant that are somewhere else: loaded when they are read, never written into the graph."""

    def __init__(self, shape: tuple[int, ...], data_type: int, load: Load, where: str = ""):
        self.tensor = reference("", shape, data_type, where)
        self.shape = shape
        self.dtype = np.dtype(helper.tensor_dtype_to_np_dtype(data_type))
        self.nbytes = int(np.prod(shape, dtype=np.int64)) * self.dtype.itemsize
        self.load = load


def kept(values: np.ndarray, load: Load) -> Kept:
    """Values that `load` gives again; `values` themselves are not held."""
    return Kept(tuple(values.shape), helper.np_dtype_to_tensor_dtype(values.dtype), load)


def peek(constant: gs.Constant) -> np.ndarray:
    """A constant's numbers, not to be changed; what is lazy stays lazy, where `.values` would keep them."""
    values = constant._values
    numbers: np.ndarray = values.load() if isinstance(values, LazyValues) else values
    return numbers


def changed(constant: gs.Constant, change: Callable[[np.ndarray], np.ndarray]) -> np.ndarray | Kept:
    """What `change` makes of a constant's numbers, in its type and shape; of a large one only once it is asked for."""
    return resized(constant, constant.shape, change)


def resized(
    constant: gs.Constant, shape: Sequence[int], change: Callable[[np.ndarray], np.ndarray]
) -> np.ndarray | Kept:
    """What `change` makes of a constant's numbers, of another shape; of a large one only once it is asked for."""
    values, dtype = constant._values, constant.dtype

    def load() -> np.ndarray:
        numbers = values.load() if isinstance(values, LazyValues) else values
        return change(numbers).astype(dtype)

    if values.nbytes <= LARGE:
        return load()
    return Kept(tuple(shape), helper.np_dtype_to_tensor_dtype(np.dtype(dtype)), load)


def read(model: Written) -> gs.Graph:
    """A model as a graphsurgeon graph."""
    with silent():
        graph = gs.import_onnx(model.proto)
    for tensor in _constants(graph):
        values = tensor._values
        if isinstance(values, LazyValues) and is_apart(values.tensor):
            stored = values.tensor
            tensor._values = Kept(tuple(stored.dims), stored.data_type, model.weights[location(stored)])
            tensor.data_location = None
    return graph


def write(graph: gs.Graph, *, large: int) -> Written:
    """The graph as a model again; its constants of more than `large` bytes are kept out of it."""
    weights: dict[str, Load] = {}
    for constant in _constants(graph):
        values = constant._values
        if not isinstance(values, Kept) and values.nbytes <= large:
            continue
        name = str(len(weights))
        weights[name] = values.load if isinstance(values, LazyValues) else _giving(values)
        constant._values = Kept(tuple(values.shape), helper.np_dtype_to_tensor_dtype(values.dtype), weights[name], name)
    with silent():
        model: onnx.ModelProto = gs.export_onnx(graph)
    _lift(model.graph)
    return Written(model, weights, large)


def _giving(values: np.ndarray) -> Load:
    return lambda: values


@contextmanager
def silent() -> Iterator[None]:
    """Without graphsurgeon's remarks, which go to stdout."""
    before = G_LOGGER.severity
    G_LOGGER.severity = G_LOGGER.CRITICAL
    try:
        yield
    finally:
        G_LOGGER.severity = before


def _constants(graph: gs.Graph) -> list[gs.Constant]:
    """Every constant that a node of the graph, or of one inside it, reads; once each."""
    found = {
        id(tensor): tensor
        for inner in (graph, *graph.subgraphs(recursive=True))
        for tensor in inner.tensors().values()
        if isinstance(tensor, gs.Constant)
    }
    return list(found.values())


def _lift(graph: onnx.GraphProto) -> None:
    """Initializers that graphsurgeon repeats in each graph that reads them stand in the outermost one alone."""
    there = {tensor.name for tensor in graph.initializer}
    made = {name for node in graph.node for name in node.output} | {value.name for value in graph.input}
    for inner in list(graphs_of(graph))[1:]:
        for tensor in list(inner.initializer):
            if tensor.name not in there and tensor.name not in made:
                graph.initializer.append(tensor)
                there.add(tensor.name)
            inner.initializer.remove(tensor)
