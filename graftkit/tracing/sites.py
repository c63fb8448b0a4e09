"""Finds every Linear and Conv call of a graph and tells which can be sites."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import replace
from math import prod

import torch
from torch import Tensor, fx

from graftkit.core.records import EdgeRecord
from graftkit.core.sites import Geometry, Site, SkippedCall
from graftkit.model import ACTIVATION_MARK, SITE_MARK
from graftkit.tracing.dataflow import data_flow, describe, followers, site_edges

aten = torch.ops.aten

_CONVS: Mapping[object, str] = {
    aten.conv1d.default: "conv1d", aten.conv1d.padding: "conv1d",
    aten.conv2d.default: "conv2d", aten.conv2d.padding: "conv2d",
    aten.conv3d.default: "conv3d", aten.conv3d.padding: "conv3d",
    aten.conv_transpose1d.default: "conv_transpose1d",
    aten.conv_transpose2d.input: "conv_transpose2d",
    aten.conv_transpose3d.input: "conv_transpose3d",
}  # fmt: skip
_CALLS: Mapping[object, str] = {
    aten.linear.default: "linear", aten.addmm.default: "linear", **_CONVS,
}  # fmt: skip
_CLOSED: Mapping[object, str] = {
    aten.gru.input: "its Linear calls are inside one recurrent operator",
    aten.lstm.input: "its Linear calls are inside one recurrent operator",
    aten.rnn_tanh.input: "its Linear calls are inside one recurrent operator",
    aten.rnn_relu.input: "its Linear calls are inside one recurrent operator",
    aten.bilinear.default: "a bilinear call has two inputs",
    aten.convolution.default: "a decomposed convolution; export without run_decompositions()",
}  # fmt: skip

_PRODUCTS = frozenset(
    {aten.matmul.default, aten.mm.default, aten.bmm.default, aten.baddbmm.default, aten.einsum.default}
)


def calls(graph: fx.Graph) -> dict[str, fx.Node]:
    """Every call with weights by key: its module path, and `:ordinal` where a module makes several."""
    by_path: dict[str, list[fx.Node]] = defaultdict(list)
    for node in graph.nodes:
        if node.target in _CALLS or node.target in _CLOSED or _multiplies_by_parameter(node):
            by_path[module_path(node) or _weight_name(node) or node.name].append(node)
    named = {
        (path if len(nodes) == 1 else f"{path}:{ordinal}"): node
        for path, nodes in by_path.items()
        for ordinal, node in enumerate(nodes)
    }
    order = {node: index for index, node in enumerate(graph.nodes)}
    return dict(sorted(named.items(), key=lambda item: order[item[1]]))


def module_path(node: fx.Node) -> str:
    """The path of the innermost module that was running when the node was recorded."""
    stack = list((node.meta.get("nn_module_stack") or {}).values())
    return str(stack[-1][0]) if stack else ""


def find_sites(
    train: fx.GraphModule, eval: fx.GraphModule
) -> tuple[tuple[Site, ...], tuple[SkippedCall, ...], tuple[EdgeRecord, ...]]:
    """The sites both graphs have, every other call with its reason, and the data flow between sites.

    Marks the nodes of both graphs.
    """
    in_train, in_eval = calls(train.graph), calls(eval.graph)
    skipped = [
        SkippedCall(key, _operator(node), f"called only in {mode} mode")
        for mode, ours, others in (("training", in_train, in_eval), ("evaluation", in_eval, in_train))
        for key, node in ours.items()
        if key not in others
    ]
    sites = []
    for key in (key for key in in_eval if key in in_train):
        reason = _refusal(in_eval[key], eval) or _refusal(in_train[key], train)
        if reason:
            skipped.append(SkippedCall(key, _operator(in_eval[key]), reason))
            continue
        site = _describe(key, in_eval[key], eval)
        if _normed(in_train[key]) != _normed(in_eval[key]):  # join where both modes have the same
            site = replace(site, followed_by=())
        sites.append(site)
        mark(site, in_train[key])
        mark(site, in_eval[key])
    edges = _edges(eval, in_eval, sites)
    feeding = {edge.source for edge in edges if not edge.target}
    return tuple(replace(site, feeds_output=site.key in feeding) for site in sites), tuple(skipped), edges


def mark_sites(graph: fx.GraphModule, sites: tuple[Site, ...]) -> set[str]:
    """Mark the nodes of known sites in a fresh graph; returns the keys that it does not have."""
    found = calls(graph.graph)
    for site in sites:
        if site.key in found:
            mark(site, found[site.key])
    return {site.key for site in sites} - set(found)


def mark(site: Site, call: fx.Node) -> None:
    """Leave the marks by which surgery finds the call and what its activation reads."""
    behind_norm = "batch_norm" in site.followed_by and _normed(call)
    reads = followers(call)[0] if behind_norm else call
    call.meta[SITE_MARK] = site.key
    reads.meta[ACTIVATION_MARK] = site.key


def _normed(call: fx.Node) -> bool:
    """Whether a batch norm, and nothing else, reads the call."""
    chain = followers(call)
    return bool(chain) and describe(chain[0]) == "batch_norm"


def _edges(graph: fx.GraphModule, named: Mapping[str, fx.Node], sites: list[Site]) -> tuple[EdgeRecord, ...]:
    return site_edges(data_flow(graph.graph), {named[site.key]: site.key for site in sites})


def _operator(node: fx.Node) -> str:
    name = _CALLS.get(node.target)
    return name or str(getattr(node.target, "overloadpacket", node.target)).removeprefix("aten.")


def _arguments(node: fx.Node) -> tuple[object, object, object]:
    """(input, weight, bias) of a Linear or Conv call."""
    args = (*node.args, None, None, None)
    if node.target is aten.addmm.default:
        return args[1], args[2], args[0]
    return args[0], args[1], args[2] if len(node.args) > 2 else node.kwargs.get("bias")


def _parameter(value: object, graph: fx.GraphModule) -> Tensor | None:
    if isinstance(value, fx.Node) and value.op == "get_attr":
        owner, _, leaf = str(value.target).rpartition(".")
        found = getattr(graph.get_submodule(owner), leaf)
        return found if isinstance(found, torch.nn.Parameter) else None
    return None


def _weight_name(node: fx.Node) -> str:
    weights = [n for n in node.all_input_nodes if n.op == "get_attr"]
    return str(weights[0].target) if weights else ""


def _multiplies_by_parameter(node: fx.Node) -> bool:
    return node.target in _PRODUCTS and any(arg.op == "get_attr" for arg in node.all_input_nodes)


def _refusal(node: fx.Node, graph: fx.GraphModule) -> str | None:
    if node.target in _CLOSED:
        return _CLOSED[node.target]
    if node.target not in _CALLS:
        return "a matrix product with a parameter, not a Linear call"
    _, weight, _ = _arguments(node)
    if _parameter(weight, graph) is None:
        return "its weight is computed on the fly"
    if node.target in _CONVS and node.meta["val"].ndim != _parameter(weight, graph).ndim:  # type: ignore[union-attr]
        return "called without a batch dimension"
    return None


def _per_row(size: object) -> int:
    """A dimension's size for one row of data: every free size counts as one."""
    if isinstance(size, int):
        return size
    expression = size.node.expr  # type: ignore[attr-defined]
    return int(expression.subs(dict.fromkeys(expression.free_symbols, 1)))


def _batch_dim(shape: tuple[object, ...]) -> int | None:
    for dim, size in enumerate(shape):
        if not isinstance(size, int):
            plain = size.node.expr.is_Symbol  # type: ignore[attr-defined]
            return dim if plain or len(shape) > 2 else None
    return None


def _describe(key: str, node: fx.Node, graph: fx.GraphModule) -> Site:
    source, weight_node, bias_node = _arguments(node)
    assert isinstance(source, fx.Node) and isinstance(weight_node, fx.Node)
    weight, bias = _parameter(weight_node, graph), _parameter(bias_node, graph)
    assert weight is not None
    operator = _CALLS[node.target]
    shape = tuple(node.meta["val"].shape)
    geometry = None if operator == "linear" else _geometry(node, weight)
    channel_dim = len(shape) - 1 if geometry is None else 1
    positions = prod(_per_row(size) for dim, size in enumerate(shape) if dim != channel_dim)
    read = source.meta["val"].shape
    transposed = operator.startswith("conv_transpose")
    touched = prod(_per_row(s) for d, s in enumerate(read) if d != 1) if transposed else positions
    return Site(
        key=key,
        path=module_path(node),
        operator=operator,
        in_channels=int(read[-1] if geometry is None else read[1]),
        out_channels=int(shape[channel_dim]),
        geometry=geometry,
        weight=str(weight_node.target),
        parameters=weight.numel() + (0 if bias is None else bias.numel()),
        macs=weight.numel() * touched,
        input_shape=tuple(s if isinstance(s, int) else -1 for s in read),
        output_shape=tuple(s if isinstance(s, int) else -1 for s in shape),
        positions=positions,
        batch_dim=_batch_dim(shape),
        followed_by=tuple(describe(f) for f in followers(node)),
    )


def _geometry(node: fx.Node, weight: Tensor) -> Geometry:
    names = [argument.name for argument in node.target._schema.arguments]  # type: ignore[union-attr]
    given = {**dict(zip(names, node.args, strict=False)), **node.kwargs}
    dims = weight.ndim - 2

    def spread(name: str, default: int) -> tuple[int, ...]:
        value = given.get(name, default)
        values = tuple(value) if isinstance(value, list | tuple) else (value,)
        return tuple(int(v) for v in (values * dims if len(values) == 1 else values))

    padding = given.get("padding", 0)
    return Geometry(
        kernel=tuple(weight.shape[2:]),
        stride=spread("stride", 1),
        padding=padding if isinstance(padding, str) else spread("padding", 0),
        dilation=spread("dilation", 1),
        groups=int(given.get("groups", 1)),
        output_padding=spread("output_padding", 0) if "output_padding" in names else (),
    )
