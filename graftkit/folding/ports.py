"""Gives an exported model's inputs, outputs and free sizes the names of its signature."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence

import onnx
import onnx_ir as ir
import torch
from onnx_ir.passes import Sequential, common
from torch import Tensor

from graftkit.core.errors import ExportError
from graftkit.core.signature import BATCH, Signature

_SYMBOL = re.compile(r"[A-Za-z_]\w*")


def free_sizes(inputs: Sequence[Tensor], signature: Signature) -> tuple[dict[int, object], ...]:
    """What tells `torch.export` which sizes are free: those that have a name in the signature.

    The batch has to stay free; another size that the graph fixes after all is fixed, and no error.
    """
    return tuple(
        {dim: _freedom(dim, size) for dim, size in enumerate(port.shape)}
        for _, port in zip(inputs, signature.inputs, strict=True)
    )


def name_ports(model: ir.Model, signature: Signature) -> None:
    """Name inputs and outputs, in place, each output being a value of its own. Raises ExportError."""
    Sequential(common.InlinePass(), common.RemoveUnusedOpsetsPass(), common.OutputFixPass())(model)
    for graph in (model.graph, *model.graph.subgraphs()):
        _give_what_a_node_makes(graph)
    inputs, outputs = model.graph.inputs, model.graph.outputs
    for what, values, ports in (("inputs", inputs, signature.inputs), ("outputs", outputs, signature.outputs)):
        if len(values) != len(ports):
            raise ExportError(f"the exported graph has {len(values)} {what}, but the model has {len(ports)}")
    taken: set[str] = set()
    for value, name in zip((*inputs, *outputs), (*signature.input_names, *signature.output_names), strict=True):
        value.name = name if name not in taken else f"{name}_output"  # an input may be passed on under its own name
        taken.add(value.name)
    common.NameFixPass()(model)  # an inner value of the same name gives way


def name_sizes(model: onnx.ModelProto, signature: Signature) -> None:
    """The exporter calls free sizes s77 or the like: give them the signature's names, in place, sums included."""
    names: dict[str, str] = {}
    for value, port in zip(model.graph.input, signature.inputs, strict=True):
        for dim, size in zip(value.type.tensor_type.shape.dim, port.shape, strict=False):
            if isinstance(size, str) and _SYMBOL.fullmatch(dim.dim_param):
                names.setdefault(dim.dim_param, size)
    for graph in graphs_of(model.graph):
        for value in (*graph.input, *graph.output, *graph.value_info):
            _rename(value, names)


def graphs_of(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    """A graph, and those in its nodes' attributes, at any depth."""
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            for inner in (attribute.g, *attribute.graphs) if attribute.type in _WITH_GRAPHS else ():
                yield from graphs_of(inner)


_WITH_GRAPHS = (onnx.AttributeProto.GRAPH, onnx.AttributeProto.GRAPHS)


def _give_what_a_node_makes(graph: ir.Graph) -> None:
    """A branch may give what it was given, or its initializer where it is constant; not every runtime takes that."""
    for place, value in enumerate(graph.outputs):
        made_by = value.producer()
        if made_by is None or made_by.graph is not graph:
            node = ir.Node("", "Identity", inputs=[value])
            (made,) = node.outputs
            made.type, made.shape = value.type, value.shape
            graph.append(node)
            graph.outputs[place] = made


def _freedom(dim: int, size: int | str) -> object:
    if isinstance(size, int):
        return torch.export.Dim.STATIC
    return torch.export.Dim.DYNAMIC if dim == 0 and size == BATCH else torch.export.Dim.AUTO


def _rename(value: onnx.ValueInfoProto, names: Mapping[str, str]) -> None:
    for dim in value.type.tensor_type.shape.dim:
        if dim.dim_param.isdecimal():  # a size that was to be free, and is not
            dim.dim_value = int(dim.dim_param)
        elif dim.dim_param:
            dim.dim_param = _SYMBOL.sub(lambda found: names.get(found[0], found[0]), dim.dim_param)
