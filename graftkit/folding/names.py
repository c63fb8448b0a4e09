"""Gives nodes, weights and the free dimension names a reader understands, and says which node serves which site."""

from __future__ import annotations

import ast
import re
from collections import Counter
from collections.abc import Mapping, Sequence

import onnx

from graftkit.core.sites import Site

SCOPES = "pkg.torch.onnx.name_scopes"
SITE_KEY = "graftkit.site"
DENDRITE_KEY = "graftkit.dendrite"
_DENDRITE_WEIGHT = re.compile(r"^graftkit_dendrites\.(?P<site>.+?)\.cascade\.(?P<rest>.+)$")
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
    constants = {tensor.name for tensor in model.graph.initializer}
    waiting = list(sites)
    for node in model.graph.node:
        path = module_scopes(node)
        owner = next((inner[scope] for scope in reversed(path) if scope in inner), None)
        if owner is not None:
            node.metadata_props.add(key=SITE_KEY, value=owner)
            node.metadata_props.add(key=DENDRITE_KEY, value="true")
            continue
        site = _site_of(node, path, waiting, constants)
        if site is not None:
            waiting.remove(site)
            node.metadata_props.add(key=SITE_KEY, value=site.key)


def rename(model: onnx.ModelProto) -> None:
    """Node names become `module/path/Operator`, dendrites' weights `SITE.dendrites.INDEX.*`, the output `output`."""
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


def _site_of(node: onnx.NodeProto, path: list[str], waiting: Sequence[Site], constants: set[str]) -> Site | None:
    weights = [name for name in node.input[:2] if name in constants]
    if node.op_type not in _WEIGHTED or not weights:
        return None
    by_weight = next((site for site in waiting if site.weight in weights), None)
    by_path = next((site for site in waiting if site.path and path and site.path == path[-1]), None)
    return by_weight or by_path


def _rename_values(model: onnx.ModelProto) -> None:
    graph = model.graph
    names: dict[str, str] = {}
    for node in graph.node:
        site, own = metadata(node).get(SITE_KEY), metadata(node).get(DENDRITE_KEY) is None
        for name in node.input[1:2]:
            if site and own and name.startswith("val_") and node.op_type in _WEIGHTED:
                names[name] = f"{site}.weight"
    for tensor in graph.initializer:
        match = _DENDRITE_WEIGHT.match(tensor.name)
        if match:
            site = match["site"].rstrip("/").replace("/", ".")
            names[tensor.name] = f"{site}.dendrites.{match['rest']}"
    if len(graph.output) == 1:
        names[graph.output[0].name] = "output"
    taken = {t.name for t in graph.initializer} | {o for n in graph.node for o in n.output}
    taken |= {value.name for value in graph.input}
    names = {old: new for old, new in names.items() if new not in taken and list(names.values()).count(new) == 1}
    for node in graph.node:
        node.input[:] = [names.get(name, name) for name in node.input]
        node.output[:] = [names.get(name, name) for name in node.output]
    for named in (*graph.initializer, *graph.output, *graph.value_info):
        named.name = names.get(named.name, named.name)
    _rename_batch(model)


def _rename_batch(model: onnx.ModelProto) -> None:
    """The exporter calls the free dimension s77 or the like; its readers call it batch."""
    symbols = {value.type.tensor_type.shape.dim[0].dim_param for value in model.graph.input}
    symbols.discard("")
    if len(symbols) != 1:
        return
    (symbol,) = symbols
    for value in (*model.graph.input, *model.graph.output, *model.graph.value_info):
        for dim in value.type.tensor_type.shape.dim:
            if dim.dim_param:
                dim.dim_param = re.sub(rf"\b{re.escape(symbol)}\b", "batch", dim.dim_param)
