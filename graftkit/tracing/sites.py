"""Finds every Linear and Conv call of a graph and tells which can be sites."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor, fx

from graftkit.core.records import EdgeRecord
from graftkit.core.sites import Site, SkippedCall
from graftkit.model import ACTIVATION_MARK, SITE_MARK
from graftkit.tracing.dataflow import data_flow, describe, followers, site_edges
from graftkit.tracing.measure import Sizes, describe_site
from graftkit.tracing.reach import reached
from graftkit.tracing.unlifting import output_nodes

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
            by_path[_place(node)].append(node)
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
    train: fx.GraphModule, eval: fx.GraphModule, inputs: Sequence[Tensor], output_at: tuple[int, int]
) -> tuple[tuple[Site, ...], tuple[SkippedCall, ...], tuple[EdgeRecord, ...]]:
    """The sites both graphs have, every other call with its reason, and the data flow between sites.

    Marks the nodes of both graphs. `inputs` are those of the example; `output_at` says which output of (train, eval)
    feeds the loss.
    """
    in_train, in_eval = calls(train.graph), calls(eval.graph)
    skipped = [
        SkippedCall(key, _operator(node), f"called only in {mode} mode")
        for mode, ours, others in (("training", in_train, in_eval), ("evaluation", in_eval, in_train))
        for key, node in ours.items()
        if key not in others
    ]
    skipped += [SkippedCall(*hidden) for hidden in _hidden(eval)]
    unfit_eval, unfit_train = _Refusals(eval, output_at[1]), _Refusals(train, output_at[0])
    sites, sizes = [], Sizes(eval, inputs)
    for key in (key for key in in_eval if key in in_train):
        call = in_eval[key]
        reason = unfit_eval(call) or unfit_train(in_train[key])
        if reason:
            skipped.append(SkippedCall(key, _operator(call), reason))
            continue
        site = describe_site(key, _path(call), _CALLS[call.target], _arguments(call), _weight_name(call), call, sizes)
        if _normed(in_train[key]) != _normed(call):  # join where both modes have the same
            site = replace(site, followed_by=())
        sites.append(site)
        mark(site, in_train[key])
        mark(site, call)
    edges = _edges(eval, in_eval, sites)
    every = {node: key for key, node in in_eval.items()}  # behind a call that is no site the output is not a site's own
    feeding = {edge.source for edge in site_edges(data_flow(eval.graph), every) if not edge.target}
    return tuple(replace(site, feeds_output=site.key in feeding) for site in sites), tuple(skipped), edges


def weights_of(graph: fx.Graph) -> list[tuple[fx.Node, fx.Node]]:
    """Every Linear and Conv call with the node of its weight."""
    found = [(node, _arguments(node)[1]) for node in graph.nodes if node.target in _CALLS]
    return [(call, weight) for call, weight in found if isinstance(weight, fx.Node)]


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


def _path(node: fx.Node) -> str:
    """The module that makes the call, or holds its weight where the graph does not say."""
    return module_path(node) or _weight_name(node).removesuffix(".weight")


def _place(node: fx.Node) -> str:
    path = module_path(node)
    if path or (node.meta.get("nn_module_stack") and not _weight_name(node)):
        return path or node.name
    return _weight_name(node).removesuffix(".weight") or node.name


def _weight_name(node: fx.Node) -> str:
    """The parameter that the call's weight is, or is computed from; "" where there is none."""
    if node.target in _CALLS:
        weight = _arguments(node)[1]
        start = [weight] if isinstance(weight, fx.Node) else []
    else:
        start = [n for n in node.all_input_nodes if n.op == "get_attr"]
    held = [n for n in _ancestors(start) if n.op == "get_attr"]
    return next((str(n.target) for n in (*filter(_is_parameter, held), *held)), "")


def _is_parameter(node: fx.Node) -> bool:
    """Whether a node gets a parameter, not a buffer."""
    owner, _, leaf = str(node.target).rpartition(".")
    root = node.graph.owning_module
    return root is not None and isinstance(getattr(root.get_submodule(owner), leaf), torch.nn.Parameter)


def _ancestors(start: list[fx.Node]) -> Iterator[fx.Node]:
    """The nodes and everything they are computed from, nearest first."""
    seen: set[fx.Node] = set()
    waiting = list(start)
    while waiting:
        node = waiting.pop(0)
        if node not in seen:
            seen.add(node)
            yield node
            waiting += node.all_input_nodes


def _multiplies_by_parameter(node: fx.Node) -> bool:
    return node.target in _PRODUCTS and any(arg.op == "get_attr" or _turned(arg) for arg in node.all_input_nodes)


def _turned(node: fx.Node) -> bool:
    """Whether it is a complex weight as the repair for complex numbers writes that of a Linear call."""
    return node.target is aten.t.default and node.all_input_nodes[0].op == "get_attr" and bool(_unreal(node))


def _unreal(node: fx.Node) -> str | None:
    kind = node.meta["val"].dtype
    return None if kind.is_floating_point else f"it computes with {kind}, not with real numbers".replace("torch.", "")


def _hidden(graph: fx.GraphModule) -> Iterator[tuple[str, str, str]]:
    """(key, operator, reason) of the calls in graphs within the graph: branches, loops, autocast regions."""
    for holder in graph.graph.nodes:
        inner = getattr(graph, str(holder.target), None) if holder.op == "get_attr" else None
        if isinstance(inner, fx.GraphModule):
            for key, node in calls(inner.graph).items():
                yield key, _operator(node), "inside a branch, a loop or a region that the graph keeps as one operation"
            yield from _hidden(inner)


class _Refusals:
    """Why a call of a graph cannot be a site; None if it can."""

    def __init__(self, graph: fx.GraphModule, output_at: int):
        self.graph = graph
        output = output_nodes(graph)[output_at]
        self.used = reached(graph, output, through_detach=True)
        self.taught = reached(graph, output)

    def __call__(self, node: fx.Node) -> str | None:
        if node.target in _CLOSED:
            return _CLOSED[node.target]
        if node.target not in _CALLS:
            return _unreal(node) or "a matrix product with a parameter, not a Linear call"
        return self._weightless(node) or self._unreached(node)

    def _weightless(self, node: fx.Node) -> str | None:
        source, weight, _ = _arguments(node)
        assert isinstance(source, fx.Node)
        if not isinstance(weight, fx.Node):
            return "it has no weight"
        behind = reached(self.graph, weight, through_detach=True)
        if any(n.op == "placeholder" for n in behind):
            return "its weight is computed from the input"
        if not any(n.op == "get_attr" and _is_parameter(n) for n in behind):
            return "its weight is fixed, no parameter"
        unreal = _unreal(node) or _unreal(source)
        if unreal:
            return unreal
        if node.target in _CONVS and node.meta["val"].ndim != weight.meta["val"].ndim:
            return "called without a batch dimension"
        return None

    def _unreached(self, node: fx.Node) -> str | None:
        if node not in self.used:
            return "it does not reach the output that is trained"
        return None if node in self.taught else "no error reaches it: what it gives is detached, or made a whole number"
