"""Proves a transplanted file: in all, or from its first layers on, it computes what the trained model computes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
import torch
from onnx import helper
from torch import Tensor, fx

from graftkit import checking, tracing, training
from graftkit.contracts import Data, Run
from graftkit.core.errors import ExportError, GraftkitError, MismatchError
from graftkit.core.signature import Port
from graftkit.model import ACTIVATION_MARK, DENDRITES_MARK, SITE_MARK, GraftedModel
from graftkit.runtimes import RUNTIMES
from graftkit.surgery.insert import read_by_site
from graftkit.transplanting.inputs import Inputs, orders
from graftkit.transplanting.network import read_by

_ROWS, _MANY = 7, 256
READ, CALL, JOINED, BEHIND = "read", "call", "joined", "behind"
OUTPUT = ""  # in the place of a site: the model's outputs, by place
GIVEN = "given"  # the model's inputs, by place in the place of a site

Values = Mapping[str, Mapping[str, np.ndarray]]  # by site: what it reads, says, and so on


@dataclass(frozen=True)
class Point:
    """A tensor of the file, and which of a site's values, of the outputs, or of the inputs it has to be.

    Attributes:
        dtype: what the file reads, where that may be another type than the model's.
    """

    tensor: str
    site: str
    what: str
    dtype: np.dtype | None = None

    @property
    def title(self) -> str:
        """For messages."""
        return f"the model's output {self.what}" if self.site == OUTPUT else f"the site {self.site!r}"


@dataclass(frozen=True, eq=False)
class Batch:
    """One batch, and what a model makes of it."""

    inputs: tuple[Tensor, ...]
    outputs: tuple[np.ndarray, ...]
    sites: Values

    def of(self, point: Point) -> np.ndarray:
        """What a point has to be."""
        if point.what == GIVEN:
            return checking.array(self.inputs[int(point.site)]).astype(point.dtype, copy=False)
        return self.outputs[int(point.what)] if point.site == OUTPUT else self.sites[point.site][point.what]


def over_all_rows(
    model: onnx.ModelProto, trained: GraftedModel, rows: Data, inputs: Inputs, fixed: int | None
) -> float:
    """The largest difference of a whole file's outputs from the trained model's, over the validation rows.

    Args:
        inputs: the file's that are the model's.
        fixed: how many rows the file takes, None where that is free.
    """
    given = (trained.arrange(each) for each, _ in training.batches(rows.validation, fixed or _MANY))
    fitting = (batch for batch in given if fixed is None or len(batch[0]) == fixed)
    run = inputs.through(_opened(model))
    return checking.compare(run, lambda batch: trained.outputs(*batch), inputs.names, fitting)


def batches_of(model: GraftedModel, rows: Data, fixed: int | None) -> list[tuple[Tensor, ...]]:
    """Real rows and as many random ones.

    Args:
        fixed: how many rows the file takes, None where that is free.
    """
    inputs, _ = next(iter(training.batches(rows.validation, fixed or _ROWS)))
    real = model.arrange(inputs)
    ports = model.traced.signature.inputs
    name = next((p.shape[0] for p in ports if p.shape and isinstance(p.shape[0], str)), None)
    if name is not None:
        real = tracing.resized(real, ports, str(name), fixed or _ROWS)
    return [real, checking.random_like(real)]


def heard(model: GraftedModel, batches: Sequence[tuple[Tensor, ...]]) -> list[Batch]:
    """What the model, in evaluation, makes of each batch, site by site."""
    graph = model.eval().graphs[1]
    found = []
    for inputs in batches:
        recorder = _Recorder(graph)
        with torch.no_grad():
            given = recorder.run(*inputs)
        outputs = (given,) if isinstance(given, Tensor) else tuple(given)
        found.append(Batch(inputs, tuple(map(checking.array, outputs)), recorder.sites()))
    return found


def identified(model: onnx.ModelProto, batches: Sequence[Batch], ports: Sequence[Port]) -> Inputs | None:
    """The inputs of a file that, fed to them, gives what the given model gives; None where it does not.

    Args:
        ports: the model's inputs.
    """
    found = ((each, whole_file(model, batches, each)) for each in orders(model, ports))
    return next((each for each, apart in found if apart is not None and apart <= checking.TOLERANCE), None)


def whole_file(model: onnx.ModelProto, batches: Sequence[Batch], inputs: Inputs) -> float | None:
    """The largest difference of the file's outputs from the model's; None where they cannot be compared.

    Args:
        inputs: the file's that are the model's.
    """
    if len(model.graph.output) != len(batches[0].outputs):
        return None
    try:
        return _differing(inputs.through(_opened(model)), inputs.names, batches)
    except GraftkitError:  # the runtime does not load it, or takes other sizes or types
        return None


def from_inside(
    model: onnx.ModelProto, feeds: Sequence[Point], points: Sequence[Point], batches: Sequence[Batch], what: str
) -> float:
    """The largest difference at the points, computed from the feeds on.

    Raises:
        MismatchError: more than the tolerance; the message names the first site.
        ExportError: the part between cannot be run alone.
    """
    part = cut(model, [point.tensor for point in feeds], [point.tensor for point in points])
    values = _values(part, feeds, batches)
    worst = 0.0
    for point in points:
        found = _apart([each[point.tensor] for each in values], batches, point)
        worst = max(worst, found)
        if not found <= checking.TOLERANCE:
            raise MismatchError(
                f"{what} differs by {found:.2g} of its scale at {point.title} (tolerance {checking.TOLERANCE:g})"
            )
    return worst


def one_of(
    model: onnx.ModelProto, feeds: Sequence[Point], points: Sequence[Point], batches: Sequence[Batch], what: str
) -> float:
    """The smallest difference at the points, of which one has to be what it was. Raises MismatchError."""
    part = cut(model, [point.tensor for point in feeds], [point.tensor for point in points])
    values = _values(part, feeds, batches)
    worst = min(_apart([each[point.tensor] for each in values], batches, point) for point in points)
    if not worst <= checking.TOLERANCE:
        raise MismatchError(f"{what} differs by {worst:.2g} of its scale at {points[0].title}")
    return worst


def outputs_inside(model: onnx.ModelProto, feeds: Sequence[Point], batches: Sequence[Batch]) -> list[list[Point]]:
    """For each output of the given model the tensors of the file that have its numbers; none where there are none."""
    fed, reached = {p.tensor for p in feeds}, {p.tensor for p in feeds if p.what != GIVEN}
    targets = []
    for node in model.graph.node:
        if node.domain in ("", "ai.onnx") and reached.intersection(read_by(node)):
            reached.update(node.output)
            targets += [name for name in node.output if name and name not in fed]
    try:
        part = cut(model, [point.tensor for point in feeds], targets)
        values = _values(part, feeds, batches)
    except GraftkitError:  # it also needs what only stands around the model
        return []
    found = []
    for index in range(len(batches[0].outputs)):
        points = [Point(name, OUTPUT, str(index)) for name in targets]
        same = [p for p in points if _apart([each[p.tensor] for each in values], batches, p) <= checking.TOLERANCE]
        found += [same] if same else []
    return found


def _apart(values: Sequence[np.ndarray], batches: Sequence[Batch], point: Point) -> float:
    found = checking.Differences()
    for value, batch in zip(values, batches, strict=True):
        found.add([value], [batch.of(point)])
    return found.worst()


def _values(part: onnx.ModelProto, feeds: Sequence[Point], batches: Sequence[Batch]) -> list[dict[str, np.ndarray]]:
    """What a part that was cut out makes of each batch, by name. Raises ExportError, MismatchError."""
    types = {p.tensor: batches[0].of(p).dtype for p in feeds}
    for value in part.graph.input:
        value.type.tensor_type.elem_type = helper.np_dtype_to_tensor_dtype(types[value.name])
    run, needed = _opened(part), [value.name for value in part.graph.input]
    names = [value.name for value in part.graph.output]
    return [
        dict(zip(names, run({p.tensor: batch.of(p) for p in feeds if p.tensor in needed}), strict=True))
        for batch in batches
    ]


def cut(model: onnx.ModelProto, feeds: Sequence[str], targets: Sequence[str]) -> onnx.ModelProto:
    """The part of a model from some tensors to others. Raises ExportError where it needs further inputs."""
    graph = model.graph
    made = {name: node for node in graph.node for name in node.output if name}
    constants = {tensor.name for tensor in graph.initializer}
    needed, waiting = set(), [name for name in targets if name not in feeds]
    while waiting:
        name = waiting.pop()
        if name in needed or name in feeds or name in constants:
            needed.add(name)
            continue
        if name not in made:
            raise ExportError(f"cannot be compared alone: what follows its first layers also reads its input {name!r}")
        needed.add(name)
        waiting += read_by(made[name])
    part = onnx.ModelProto()
    part.CopyFrom(model)
    part.graph.ClearField("value_info")
    for field in (part.graph.node, part.graph.input, part.graph.output, part.graph.initializer):
        del field[:]
    kept = [n for n in graph.node if any(name in needed and name not in feeds for name in n.output)]
    part.graph.node.extend(kept)
    part.graph.initializer.extend(tensor for tensor in graph.initializer if tensor.name in needed)
    used = {name for node in kept for name in read_by(node)} | set(targets)
    inputs = [name for name in dict.fromkeys(feeds) if name in used]
    part.graph.input.extend(helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None) for name in inputs)
    part.graph.output.extend(onnx.ValueInfoProto(name=name) for name in dict.fromkeys(targets) if name not in feeds)
    return part


def _opened(model: onnx.ModelProto) -> Run:
    return RUNTIMES.find("onnxruntime").open(model.SerializeToString())


def _differing(run: Run, names: Sequence[str], batches: Sequence[Batch]) -> float:
    found = checking.Differences()
    for batch in batches:
        found.add(run(checking.feed(names, batch.inputs)), batch.outputs)
    return found.worst()


class _Recorder(fx.Interpreter):
    """Runs a graph and keeps what its sites read and say."""

    def __init__(self, graph: fx.GraphModule):
        super().__init__(graph, garbage_collect_values=False)
        self._nodes = dict(_marked(graph))
        wanted = {node for each in self._nodes.values() for node in each.values()}
        self._wanted, self._values = wanted, dict[fx.Node, np.ndarray]()

    def run_node(self, n: fx.Node) -> object:
        value = super().run_node(n)
        if n in self._wanted and isinstance(value, Tensor):
            self._values[n] = checking.array(value.clone())  # an activation may work in place, further on
        return value

    def sites(self) -> Values:
        return {
            site: {what: self._values[node] for what, node in each.items() if node in self._values}
            for site, each in self._nodes.items()
        }


def _marked(graph: fx.GraphModule) -> Iterator[tuple[str, Mapping[str, fx.Node]]]:
    nodes = list(graph.graph.nodes)
    calls, behind, joined = (
        {node.meta[mark]: node for node in nodes if mark in node.meta}
        for mark in (SITE_MARK, ACTIVATION_MARK, DENDRITES_MARK)
    )
    for site, call in calls.items():
        last = joined.get(site, call)
        yield site, {READ: read_by_site(call), CALL: call, JOINED: last, BEHIND: behind.get(site, call)}
