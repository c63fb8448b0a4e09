"""Describes any ONNX file: what graftkit wrote into it, or else its own Conv and Linear nodes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import Any

import networkx as nx
import onnx

from graftkit.core.errors import SourceError
from graftkit.core.records import EdgeRecord, Inspection, SiteRecord

_QUANTIZING = ("QuantizeLinear", "DequantizeLinear")  # whose scales and zero points are no parameters
_OPERATORS = {"Conv": "conv", "ConvTranspose": "conv_transpose", "Gemm": "linear", "MatMul": "linear"}


def inspect_onnx(model: onnx.ModelProto, facts: Mapping[str, Any], *, name: str) -> Inspection:
    """Describe an ONNX model.

    Args:
        model: the file, loaded.
        facts: what graftkit wrote into its metadata, empty for any other file.
        name: the file's name, for a title.

    Raises:
        SourceError: graftkit's facts are there but cannot be read.
    """
    if "inspection" in facts:
        return _with_gate(model, facts.get("gate"), _checked(model, facts["inspection"], name))
    return _plain(model, name)


def _checked(model: onnx.ModelProto, value: Any, name: str) -> Inspection:
    """The description in the metadata, less any dendrites that the graph does not have."""
    try:
        found = replace(Inspection.from_json(value), name=name, format="onnx")
        notes = _fewer(found.sites, _neurons(model.graph))
    except (KeyError, TypeError, AttributeError, IndexError) as error:
        raise SourceError(f"{name}: graftkit's description in the file's metadata is broken ({error!r})") from None
    present = {
        entry.value
        for graph in _graphs(model.graph)
        for node in graph.node
        if any(own.key == "graftkit.dendrite" for own in node.metadata_props)
        for entry in node.metadata_props
        if entry.key == "graftkit.site"
    }
    missing = [s.site for s in found.sites if any(d.strength for d in s.dendrites) and s.site not in present]
    if missing:
        notes = (*notes, f"the metadata names dendrites at {', '.join(missing)}, but the graph has none there")
    sites = tuple(replace(site, dendrites=()) if site.site in missing else site for site in found.sites)
    return replace(found, sites=sites, notes=(*found.notes, *notes))


def _fewer(sites: Sequence[SiteRecord], counts: Mapping[str, int]) -> tuple[str, ...]:
    """A note where the file has fewer neurons than the model."""
    fewer = [
        f"{site.site} ({counts[site.site]} of {neurons})"
        for site in sites
        if (neurons := site.output_shape[-1 - len(site.kernel)]) > counts.get(site.site, neurons)
    ]
    return (f"neurons that were constant or that nobody read are not in the file: {', '.join(fewer)}",) if fewer else ()


def _neurons(graph: onnx.GraphProto) -> Mapping[str, int]:
    """How many neurons the graph has at each site whose own call it marks."""
    weights, counts = _weights(graph), dict[str, int]()
    for node in graph.node:
        marks = {entry.key: entry.value for entry in node.metadata_props}
        own = "graftkit.site" in marks and "graftkit.dendrite" not in marks
        sizes = weights.get(node.input[1], ()) if own and len(node.input) > 1 else ()
        if sizes and node.op_type in ("Conv", "Gemm", "MatMul"):
            rows = node.op_type == "Conv" or any(told.name == "transB" and told.i for told in node.attribute)
            counts[marks["graftkit.site"]] = sizes[0 if rows else -1]
    return counts


def _with_gate(model: onnx.ModelProto, gate: Any, found: Inspection) -> Inspection:
    """With what a gate makes of the network, in words."""
    if gate is None:
        return found
    try:
        share, threshold = float(gate["share"]), float(gate["threshold"])
    except (KeyError, OverflowError, TypeError, ValueError):
        raise SourceError(f"{found.name}: what graftkit says of its gate in the file's metadata is broken") from None
    counted = _counted(model, found.name)
    note = (
        f"a gate runs the dendrites for rows of which the network is less than {threshold:.4f} sure without them,"
        f" {100 * share:.1f}% of validation rows"
    )
    if not _free(counted.sites):  # else the number of positions is not known here
        note += f"; such a row takes {counted.macs(max):,} multiply-adds, any other {counted.macs(min):,}"
    return replace(found, notes=(*found.notes, note))


def _plain(model: onnx.ModelProto, name: str) -> Inspection:
    counted = _counted(model, name)
    graph = counted.graph
    scales = {given for node in counted.nodes if node.op_type in _QUANTIZING for given in node.input[1:]}
    return Inspection(
        name=name,
        format="onnx",
        sites=tuple(counted.sites.values()),
        skipped=(),
        edges=_edges(graph, {i: site.site for i, site in counted.sites.items() if i < len(graph.node)}),
        parameters=sum(prod(t.dims) for inner in _graphs(graph) for t in inner.initializer if t.name not in scales),
        macs=counted.macs(max),
        notes=(
            "not written by graftkit: sites are its Conv, Gemm and MatMul nodes with constant weights",
            *_free(counted.sites),
            *(["of each If the costlier branch counts in multiply-adds"] if any(map(_within, graph.node)) else []),
        ),
    )


@dataclass(frozen=True, eq=False)
class _Counted:
    """A graph whose sizes are known.

    Attributes:
        nodes: its own and then those of graphs within it, at any depth.
        sites: by the place of their nodes among those.
    """

    graph: onnx.GraphProto
    nodes: list[onnx.NodeProto]
    sites: Mapping[int, SiteRecord]

    def macs(self, chosen: Callable[[Sequence[int]], int]) -> int:
        """Multiply-adds where of a node's branches the one runs that is `chosen` by theirs: max or min."""
        own = {id(self.nodes[index]): site.macs for index, site in self.sites.items()}

        def of(graph: onnx.GraphProto) -> int:
            inner = (chosen([of(each) for each in _within(node)] or [0]) for node in graph.node)
            return sum(own.get(id(node), 0) for node in graph.node) + sum(inner)

        return of(self.graph)


def _counted(model: onnx.ModelProto, name: str) -> _Counted:
    try:
        graph = onnx.shape_inference.infer_shapes(model).graph
    except (onnx.shape_inference.InferenceError, ValueError, RuntimeError) as error:  # a type that there is not
        raise SourceError(f"{name} is not a consistent ONNX graph: {str(error).splitlines()[0]}") from None
    graphs = list(_graphs(graph))
    weights = {name: sizes for each in graphs for name, sizes in _weights(each).items()}
    shapes = {
        value.name: tuple(dim.dim_value or -1 for dim in value.type.tensor_type.shape.dim)
        for each in graphs
        for value in (*each.input, *each.value_info, *each.output)
    }
    nodes = [node for each in graphs for node in each.node]
    found = {
        index: _site(node, index, weights, shapes)
        for index, node in enumerate(nodes)
        if node.op_type in _OPERATORS and any(name in weights for name in node.input[:2])
    }
    return _Counted(graph, nodes, found)


def _graphs(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    """A graph, and those in its nodes, at any depth."""
    yield graph
    for node in graph.node:
        for inner in _within(node):
            yield from _graphs(inner)


def _within(node: onnx.NodeProto) -> list[onnx.GraphProto]:
    graphs = [attribute.g for attribute in node.attribute if attribute.type == onnx.AttributeProto.GRAPH]
    return [*graphs, *(graph for attribute in node.attribute for graph in attribute.graphs)]


def _weights(graph: onnx.GraphProto) -> dict[str, tuple[int, ...]]:
    """The sizes of all constants by name, and of those that are only turned, or made larger numbers, before use."""
    weights = {tensor.name: tuple(tensor.dims) for tensor in graph.initializer}
    for node in graph.node:
        attributes = {attribute.name: attribute for attribute in node.attribute}
        if node.op_type == "Constant" and "value" in attributes:
            weights[node.output[0]] = tuple(attributes["value"].t.dims)
        elif node.op_type == "Transpose" and node.input[0] in weights:
            given = weights[node.input[0]]
            order = attributes["perm"].ints if "perm" in attributes else range(len(given))[::-1]
            weights[node.output[0]] = tuple(given[dim] for dim in order if dim < len(given))
        elif node.op_type in ("DequantizeLinear", "Cast") and node.input[0] in weights:
            weights[node.output[0]] = weights[node.input[0]]
    return weights


def _free(sites: Mapping[int, SiteRecord]) -> tuple[str, ...]:
    """A note where a size that is free had to count as one."""
    inner = (site.output_shape[2:] if site.kernel else site.output_shape[1:-1] for site in sites.values())
    return ("sizes that are free count as one in multiply-adds",) if any(-1 in sizes for sizes in inner) else ()


def _site(
    node: onnx.NodeProto, index: int, weights: Mapping[str, tuple[int, ...]], shapes: Mapping[str, tuple[int, ...]]
) -> SiteRecord:
    constants = [name for name in node.input if name in weights]
    weight = weights[constants[0]]
    is_conv = node.op_type in ("Conv", "ConvTranspose")
    data = next((name for name in node.input[:2] if name not in weights), node.input[0])
    output = shapes.get(node.output[0], ())
    touched = shapes.get(data, ()) if node.op_type == "ConvTranspose" else output
    inner = touched[2:] if is_conv else touched[1:-1]
    operator = _OPERATORS[node.op_type] + (f"{len(weight) - 2}d" if is_conv else "")
    return SiteRecord(
        site=node.name or f"{node.op_type}_{index}",
        operator=operator,
        input_shape=shapes.get(data, ()),
        output_shape=output,
        kernel=weight[2:] if is_conv else (),
        parameters=sum(prod(weights[name]) for name in constants),
        macs=prod(weight) * prod(size for size in inner if size > 0),
    )


def _edges(graph: onnx.GraphProto, names: Mapping[int, str]) -> tuple[EdgeRecord, ...]:
    flow = nx.DiGraph()
    made = {output: index for index, node in enumerate(graph.node) for output in node.output}
    inputs = {value.name for value in graph.input} - {t.name for t in graph.initializer}
    for index, node in enumerate(graph.node):
        for name in node.input:
            if name in made:
                flow.add_edge(made[name], index)
            elif name in inputs:
                flow.add_edge("input", index)
    for value in graph.output:
        if value.name in made:
            flow.add_edge(made[value.name], "output")
    edges: dict[EdgeRecord, None] = {}
    starts: dict[Any, str] = {"input": "", **names}
    for start, name in starts.items():
        for target in _reach(flow, start, names):
            edges[EdgeRecord(name, target)] = None
    return tuple(edges)


def _reach(flow: nx.DiGraph, start: Any, names: Mapping[int, str]) -> list[str]:
    found: dict[str, None] = {}
    waiting = list(flow.successors(start)) if start in flow else []
    seen = set()
    while waiting:
        node = waiting.pop()
        if node in seen:
            continue
        seen.add(node)
        if node == "output":
            found[""] = None
        elif node in names:
            found[names[node]] = None
        else:
            waiting.extend(flow.successors(node))
    return list(found)
