"""Finds the first site at which an ONNX file and the graph it was written from part."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
import onnx
import torch
from torch import Tensor, fx

from graftkit.model import ACTIVATION_MARK, DENDRITES_MARK, SITE_MARK

Open = Callable[[bytes], Callable[[np.ndarray], list[np.ndarray]]]


def first_difference(
    model: onnx.ModelProto, graph: fx.GraphModule, inputs: Tensor, open_runtime: Open, *, tolerance: float
) -> str | None:
    """The key of the first site whose output differs by more than `tolerance` of its scale, None if none does.

    Args:
        model: as `graftkit.folding.fold` made it, its nodes marked with their sites.
        graph: the grafted evaluation graph.
        inputs: one batch.
        open_runtime: loads an ONNX file and gives the function that runs it.
    """
    tensors = _site_tensors(model)
    if not tensors:
        return None
    probe = onnx.ModelProto()
    probe.CopyFrom(model)
    own = {value.name for value in model.graph.output}
    probe.graph.output.extend(onnx.ValueInfoProto(name=name) for name in tensors.values() if name not in own)
    values = open_runtime(probe.SerializeToString())(inputs.cpu().numpy())
    found = dict(zip([value.name for value in probe.graph.output], values, strict=True))
    for site, expected in _site_values(graph, inputs):
        if site not in tensors:
            continue
        given = np.asarray(found[tensors[site]], dtype=np.float64)
        if not any(_close(given, value.double().cpu().numpy(), tolerance) for value in expected):
            return site
    return None


def _close(given: np.ndarray, wanted: np.ndarray, tolerance: float) -> bool:
    """Whether two arrays agree; one that is not finite agrees with none."""
    return given.shape == wanted.shape and bool(np.abs(given - wanted).max() <= tolerance * np.abs(wanted).max())


def _site_tensors(model: onnx.ModelProto) -> Mapping[str, str]:
    """The ONNX tensor that holds each site's joined neurons: its last node's output."""
    tensors: dict[str, str] = {}
    readers: dict[str, list[onnx.NodeProto]] = {}
    constants = {tensor.name for tensor in model.graph.initializer}
    for node in model.graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)
    for node in model.graph.node:
        site = next((entry.value for entry in node.metadata_props if entry.key == "graftkit.site"), None)
        if site is not None:
            tensors[site] = _with_bias(node, readers.get(node.output[0], []), constants)
    return tensors


def _with_bias(node: onnx.NodeProto, readers: Sequence[onnx.NodeProto], constants: set[str]) -> str:
    add = readers[0] if node.op_type == "MatMul" and len(readers) == 1 and readers[0].op_type == "Add" else None
    biased = add is not None and any(name in constants for name in add.input)
    return str(add.output[0]) if add is not None and biased else str(node.output[0])


class _Recorder(fx.Interpreter):
    """Runs a graph and keeps every node's value."""

    def __init__(self, graph: fx.GraphModule):
        super().__init__(graph, garbage_collect_values=False)
        self.values: dict[fx.Node, object] = {}

    def run_node(self, n: fx.Node) -> object:
        value = super().run_node(n)
        # a copy: an activation that works in place, further on, would change what was recorded
        self.values[n] = value.clone() if isinstance(value, Tensor) else value
        return value


def _site_values(graph: fx.GraphModule, inputs: Tensor) -> Iterator[tuple[str, list[Tensor]]]:
    """What each site gives: its joined neurons, and the batch norm behind them, which may have been folded in."""
    recorder = _Recorder(graph)
    with torch.no_grad():
        recorder.run(inputs)
    order = {node: index for index, node in enumerate(graph.graph.nodes)}
    calls, reads, joins = (
        {node.meta[mark]: node for node in order if mark in node.meta}
        for mark in (SITE_MARK, ACTIVATION_MARK, DENDRITES_MARK)
    )
    for site, joined in sorted({**calls, **joins}.items(), key=lambda item: order[item[1]]):
        behind = reads.get(site, joined)
        nodes = [joined, behind] if order[behind] > order[joined] else [joined]
        yield site, [value for node in nodes if isinstance(value := recorder.values[node], Tensor)]
