"""Writes the sizes of a reshape as numbers where a file computes them of what it could copy, or work out, itself."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_graphsurgeon as gs

from graftkit.folding.rewrites.sizes import Dim, dims_of, sizes_of
from graftkit.folding.rewrites.tensors import fresh, nodes_of


def write_sizes(graph: gs.Graph) -> int:
    """Reshape(x, sizes computed of Shape(x)) becomes a Squeeze, or Reshape(x, [0, 0, 32]), where 0 copies a size of x.

    The exporter joins a recurrent layer's directions so, also where there is one. A size that is zero would mean
    another thing: only sizes that are known, or are x's own in the same place, are written.
    """
    written = 0
    for node in nodes_of(graph, "Reshape"):
        given = node.inputs[1]
        sizes = None if isinstance(given, gs.Constant) or node.attrs.get("allowzero", 0) else sizes_of(given)
        if sizes is not None and (_as_squeeze(graph, node, sizes) or _as_numbers(graph, node, sizes)):
            written += 1
    return written


def _as_squeeze(graph: gs.Graph, node: gs.Node, sizes: Sequence[int | Dim]) -> bool:
    source = node.inputs[0]
    dims = dims_of(source) or []
    gone = [axis for axis, size in enumerate(dims) if size == 1 and [*dims[:axis], *dims[axis + 1 :]] == list(sizes)]
    if not gone:
        return False
    axes = gs.Constant(fresh(graph, f"{node.outputs[0].name}_axes"), np.array(gone[:1], np.int64))
    node.op, node.attrs, node.inputs = "Squeeze", {}, [source, axes]
    return True


def _as_numbers(graph: gs.Graph, node: gs.Node, sizes: Sequence[int | Dim]) -> bool:
    numbers = [_number(node.inputs[0], place, size) for place, size in enumerate(sizes)]
    if None in numbers:
        return False
    node.inputs[1] = gs.Constant(fresh(graph, f"{node.outputs[0].name}_sizes"), np.array(numbers, np.int64))
    return True


def _number(source: gs.Tensor, place: int, size: int | Dim) -> int | None:
    if isinstance(size, Dim):
        return 0 if size == Dim(source.name, place) else None
    return size if size > 0 or size == -1 else None
