"""The layouts that are chosen by rule, for a runtime that nobody could measure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod

import onnx

from graftkit.folding.layouts.sites import attributes, constants, grafted_sites

_FEW, _TAPS = 16, 9  # channels at most and positions of the kernel at least: docs/speed.md has what was measured


def portable(model: onnx.ModelProto) -> Mapping[str, str]:
    """By site key: `wide` for convolutions of few channels and many taps that have a dendrite with the same kernel.

    Few channels leave vector units idle that a wide convolution fills.
    """
    known = constants(model.graph)
    found = {}
    for site in grafted_sites(model.graph):
        weight = known.get(site.own.input[1]) if site.own.op_type == "Conv" else None
        if weight is None or weight.dims[0] > _FEW or prod(weight.dims[2:]) < _TAPS:
            continue
        alike = any(
            node.op_type == "Conv" and node.input[0] == site.own.input[0] and _kernel(node, known) == weight.dims[2:]
            for node in site.dendrites
        )
        if alike and attributes(site.own).get("group", 1) == 1:
            found[site.site] = "wide"
    return found


def _kernel(node: onnx.NodeProto, known: Mapping[str, onnx.TensorProto]) -> Sequence[int]:
    return known[node.input[1]].dims[2:] if node.input[1] in known else ()
