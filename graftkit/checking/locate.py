"""Finds the first site at which an ONNX file and the graph it was written from part."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from tempfile import NamedTemporaryFile

import numpy as np
import onnx
import torch
from torch import Tensor, fx

from graftkit.checking.compare import feed
from graftkit.contracts import Run
from graftkit.model import ACTIVATION_MARK, DENDRITES_MARK, SITE_MARK

Open = Callable[[bytes | Path], Run]


def first_difference(
    model: onnx.ModelProto,
    graph: fx.GraphModule,
    inputs: Mapping[str, Tensor],
    open_runtime: Open,
    *,
    tolerance: float,
    folder: Path | None = None,
) -> str | None:
    """The key of the first site whose output differs by more than `tolerance` of its scale, None if none does.

    Args:
        model: as `graftkit.folding.fold` made it, its nodes marked with their sites.
        graph: the grafted evaluation graph.
        inputs: one batch, by name, in the graph's order.
        open_runtime: loads an ONNX file and gives the function that runs it.
        folder: where the model's external data are, if it has any.
    """
    tensors = _site_tensors(model)
    if not tensors:
        return None
    probe = onnx.ModelProto()
    probe.CopyFrom(model)
    own = {value.name for value in model.graph.output}
    probe.graph.output.extend(onnx.ValueInfoProto(name=name) for name in tensors.values() if name not in own)
    values = _run(probe, inputs, open_runtime, folder)
    found = dict(zip([value.name for value in probe.graph.output], values, strict=True))
    for site, expected in _site_values(graph, tuple(inputs.values())):
        if site not in tensors:
            continue
        given = np.asarray(found[tensors[site]], dtype=np.float64)
        wanted = [value.double().cpu().numpy() for value in expected]
        if not any(_narrower(given, value) or _close(given, value, tolerance) for value in wanted):
            return site
    return None


def _run(
    probe: onnx.ModelProto, inputs: Mapping[str, Tensor], open_runtime: Open, folder: Path | None
) -> list[np.ndarray]:
    batch = feed(tuple(inputs), tuple(inputs.values()))
    if folder is None:
        return open_runtime(probe.SerializeToString())(batch)
    with NamedTemporaryFile(dir=folder, prefix=".probe.", suffix=".onnx") as file:  # its weights lie beside it
        file.write(probe.SerializeToString())
        file.flush()
        return open_runtime(Path(file.name))(batch)


def _narrower(given: np.ndarray, wanted: np.ndarray) -> bool:
    """Whether neurons were taken out of the file, so that nothing can be said of the others here."""
    if given.ndim != wanted.ndim:
        return False
    other = [axis for axis, sizes in enumerate(zip(given.shape, wanted.shape, strict=True)) if sizes[0] != sizes[1]]
    return len(other) == 1 and other[0] > 0 and given.shape[other[0]] < wanted.shape[other[0]]


def _close(given: np.ndarray, wanted: np.ndarray, tolerance: float) -> bool:
    """Whether two arrays agree; one that is not finite agrees with none."""
    if given.shape != wanted.shape:
        return False
    return not wanted.size or bool(np.abs(given - wanted).max() <= tolerance * np.abs(wanted).max())


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


def _site_values(graph: fx.GraphModule, inputs: tuple[Tensor, ...]) -> Iterator[tuple[str, list[Tensor]]]:
    """What each site gives: its joined neurons, and what is made of them next, which may have been folded in."""
    recorder = _Recorder(graph)
    with torch.no_grad():
        recorder.run(*inputs)
    order = {node: index for index, node in enumerate(graph.graph.nodes)}
    calls, reads, joins = (
        {node.meta[mark]: node for node in order if mark in node.meta}
        for mark in (SITE_MARK, ACTIVATION_MARK, DENDRITES_MARK)
    )
    for site, joined in sorted({**calls, **joins}.items(), key=lambda item: order[item[1]]):
        behind = reads.get(site, joined)
        nodes = [joined, behind] if order[behind] > order[joined] else [joined]
        nodes += [user for node in nodes for user in node.users]  # a rectifier before a gate, a batch norm
        yield site, [value for node in nodes if isinstance(value := recorder.values[node], Tensor)]
