"""Gives nodes and weights names a reader understands, and says which node serves which site."""

from __future__ import annotations

import ast
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from math import prod

import onnx

from graftkit.core.sites import Site
from graftkit.folding.ports import graphs_of

SCOPES = "pkg.torch.onnx.name_scopes"
SITE_KEY = "graftkit.site"
DENDRITE_KEY = "graftkit.dendrite"
_DENDRITE_WEIGHT = re.compile(r"^graftkit_dendrites\.(?P<site>.+?)\.cascade\.(?P<rest>.+)$")
_FLOATS = (onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16, onnx.TensorProto.BFLOAT16, onnx.TensorProto.DOUBLE)
_WEIGHTED = ("Conv", "ConvTranspose", "Gemm", "MatMul")


def scopes_of(model: onnx.ModelProto) -> dict[str, str]:
    """The exporter's module scopes by node name; graphsurgeon drops them."""
    return {node.name: entry.value for node in model.graph.node for entry in node.metadata_props if entry.key == SCOPES}


def restore_scopes(model: onnx.ModelProto, scopes: Mapping[str, str]) -> None:
    """Put the scopes back, and nothing else: the exporter's stack traces hold source lines and paths."""
    for node in model.graph.node:
        del node.metadata_props[:]
        if node.name in scopes:
            node.metadata_props.add(key=SCOPES, value=scopes[node.name])


def mark_sites(model: onnx.ModelProto, sites: Sequence[Site], grafted: Sequence[str]) -> None:
    """Write which site a node belongs to, and whether it is part of its dendrites, into the node's metadata."""
    inner = {f"{key}.dendrites": key for key in grafted}
    origins = _origins(model.graph)
    waiting = list(sites)
    for node in model.graph.node:
        path = module_scopes(node)
        owner = next((inner[scope] for scope in reversed(path) if scope in inner), None)
        if owner is not None:
            node.metadata_props.add(key=SITE_KEY, value=owner)
            node.metadata_props.add(key=DENDRITE_KEY, value="true")
            continue
        site = _site_of(node, path, waiting, origins)
        if site is not None:
            waiting.remove(site)
            node.metadata_props.add(key=SITE_KEY, value=site.key)


def rename(model: onnx.ModelProto) -> None:
    """Node names become `module/path/Operator`, dendrites' weights `SITE.dendrites.INDEX.*`; ports keep theirs.

    What was computed of weights, for dendrites that serve some neurons, is `SITE.dendrites.VALUE.weight`, after what
    the node gives that reads it.
    """
    _rename_values(model)
    taken: Counter[str] = Counter()
    for node in model.graph.node:
        site = metadata(node).get(SITE_KEY)
        path = site if site and not metadata(node).get(DENDRITE_KEY) else (module_scopes(node) or [""])[-1]
        name = f"{path.replace('.', '/')}/{node.op_type}" if path else node.op_type
        taken[name] += 1
        node.name = name if taken[name] == 1 else f"{name}_{taken[name] - 1}"


def metadata(node: onnx.NodeProto) -> dict[str, str]:
    """A node's metadata as a dict."""
    return {entry.key: entry.value for entry in node.metadata_props}


def module_scopes(node: onnx.NodeProto) -> list[str]:
    """The modules a node came from, outermost first, without the node's own name."""
    text = metadata(node).get(SCOPES, "")
    try:
        scopes = ast.literal_eval(text) if text else []
    except (ValueError, SyntaxError):
        return []
    return [scope for scope in scopes[:-1] if scope and not scope.startswith("_empty")]


def _site_of(node: onnx.NodeProto, path: list[str], waiting: Sequence[Site], origins: Mapping[str, str]) -> Site | None:
    weights = [origins[name] for name in node.input[:2] if name in origins]
    if node.op_type not in _WEIGHTED or not weights:
        return None
    by_weight = next((site for site in waiting if site.weight in weights), None)
    by_path = next((site for site in waiting if site.path and path and site.path == path[-1]), None)
    return by_weight or by_path


def _computed_names(graph: onnx.GraphProto) -> dict[str, str]:
    """Names for what was computed of dendrites' weights, for neurons that they do not serve: by the node it is for."""
    readers: dict[str, list[onnx.NodeProto]] = {}
    for node in graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)
    names = {}
    for tensor in graph.initializer:
        node, *others = readers.get(tensor.name, [None])
        weight = tensor.data_type in _FLOATS and prod(tensor.dims) > 1
        if node is None or others or metadata(node).get(DENDRITE_KEY) is None or not weight:
            continue
        role = ("input", "weight", "bias")[min(2, list(node.input).index(tensor.name))]
        role = role if node.op_type in _WEIGHTED else "factor"
        names[tensor.name] = f"{metadata(node)[SITE_KEY]}.dendrites.{node.output[0]}.{role}"
    return names


def _origins(graph: onnx.GraphProto) -> dict[str, str]:
    """Each weight by its own name, and by that of what turns it, where it serves as it is elsewhere."""
    origins = {tensor.name: tensor.name for tensor in graph.initializer}
    for node in graph.node:
        if node.op_type == "Transpose" and node.input[0] in origins:
            origins[node.output[0]] = origins[node.input[0]]
    return origins


def _rename_values(model: onnx.ModelProto) -> None:
    graphs = list(graphs_of(model.graph))
    taken = {value.name for graph in graphs for value in (*graph.initializer, *graph.input)}
    taken |= {name for graph in graphs for node in graph.node for name in node.output}
    wanted = _wanted_names(model.graph)
    times = Counter(wanted.values())
    names = {old: new for old, new in wanted.items() if new not in taken and times[new] == 1}
    for graph in graphs:
        for node in graph.node:
            node.input[:] = [names.get(name, name) for name in node.input]
        for named in (*graph.initializer, *graph.value_info):
            named.name = names.get(named.name, named.name)


def _wanted_names(graph: onnx.GraphProto) -> dict[str, str]:
    """Better names for weights: those of their sites."""
    names: dict[str, str] = {}
    weights = {tensor.name for tensor in graph.initializer}
    for node in graph.node:
        site, own = metadata(node).get(SITE_KEY), metadata(node).get(DENDRITE_KEY) is None
        for name in node.input[1:2]:
            if site and own and name in weights and name.startswith("val_") and node.op_type in _WEIGHTED:
                names[name] = f"{site}.weight"
    names |= _computed_names(graph)
    for tensor in graph.initializer:
        match = _DENDRITE_WEIGHT.match(tensor.name)
        if match:
            site = match["site"].rstrip("/").replace("/", ".")
            names[tensor.name] = f"{site}.dendrites.{match['rest']}"
    return names
