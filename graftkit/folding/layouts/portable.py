"""The layouts that are chosen by rule, for a runtime that nobody could measure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import onnx

from graftkit.folding.layouts.sites import attributes, constants, grafted_sites

_FEW = 12  # channels: up to here one wide convolution was faster than two (docs/speed.md); from 24 on it was slower


def portable(model: onnx.ModelProto) -> Mapping[str, str]:
    """By site key: `wide` for convolutions of few channels that have a dendrite of the same size.

    Few channels leave vector units idle that a wide convolution fills.
    """
    known = constants(model.graph)
    found = {}
    for site in grafted_sites(model.graph):
        weight = known.get(site.own.input[1]) if site.own.op_type == "Conv" else None
        if weight is None or weight.dims[0] > _FEW or attributes(site.own).get("group", 1) != 1:
            continue
        alike = any(
            node.op_type == "Conv" and node.input[0] == site.own.input[0] and _sizes(node, known) == weight.dims
            for node in site.dendrites
        )
        if max(weight.dims[2:]) > 1 and alike:
            found[site.site] = "wide"
    return found


def _sizes(node: onnx.NodeProto, known: Mapping[str, onnx.TensorProto]) -> Sequence[int]:
    return known[node.input[1]].dims if node.input[1] in known else ()
