"""Writes a resize's factors as numbers where a file computes its sizes, and only the rows are free."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_graphsurgeon as gs

from graftkit.folding.rewrites.sizes import Dim, dims_of, sizes_of
from graftkit.folding.rewrites.tensors import fresh, nodes_of


def write_factors(graph: gs.Graph) -> int:
    """Resize(x, sizes computed of Shape(x)) becomes Resize(x, scales=[1, 1, 2, 2]), which tract can plan.

    ONNX has a factor be the new size through the old, and the new size the old times the factor, rounded down: where
    that is the size again, in single precision and in double, as runtimes have it, both say the same.
    """
    written = 0
    for node in nodes_of(graph, "Resize"):
        given = node.inputs[3] if len(node.inputs) == 4 else None
        if given is None or isinstance(given, gs.Constant) or node.attrs.get("axes") is not None:
            continue
        factors = _factors(node, sizes_of(given)) if _plain(node) else None
        if factors is not None:
            constant = gs.Constant(fresh(graph, f"{node.outputs[0].name}_scales"), np.array(factors, np.float32))
            node.inputs = [*node.inputs[:2], constant]
            written += 1
    return written


def _plain(node: gs.Node) -> bool:
    """Whether nothing but the sizes says how it is resized."""
    cropped = node.attrs.get("coordinate_transformation_mode") == "tf_crop_and_resize"
    return not cropped and bool(node.attrs.get("keep_aspect_ratio_policy", "stretch") == "stretch")


def _factors(node: gs.Node, sizes: Sequence[int | Dim] | None) -> list[float] | None:
    """One for each axis, None where they are not known, or would give other sizes."""
    source = node.inputs[0]
    dims = dims_of(source)
    if dims is None or sizes is None or len(sizes) != len(dims):
        return None
    factors = []
    for own, wanted in zip(dims, sizes, strict=True):
        if own == wanted:
            factors.append(1.0)
        elif isinstance(own, int) and isinstance(wanted, int) and own > 0:
            factor = np.float32(wanted) / np.float32(own)
            if not int(np.float32(own) * factor) == int(own * float(factor)) == wanted:
                return None
            factors.append(float(factor))
        else:
            return None
    return factors
