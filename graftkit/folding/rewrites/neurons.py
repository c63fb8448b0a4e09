"""Takes out neurons that say the same whatever they read, or that nobody listens to."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass
from math import prod

import numpy as np
import onnx_graphsurgeon as gs
from onnx_graphsurgeon.exporters.onnx_exporter import OnnxExporter

from graftkit.folding.evaluate import evaluate
from graftkit.folding.rewrites.calls import axis_of
from graftkit.folding.rewrites.channels import (
    ELEMENTWISE,
    Channels,
    channels_of,
    constant_channels,
    is_depthwise,
    minds_border,
)
from graftkit.folding.rewrites.tensors import held, nodes_of
from graftkit.folding.surgeon import changed, peek, resized


@dataclass(frozen=True, eq=False)
class _Said:
    """What the channels of a tensor say: numbers, [channels], which count where they are known."""

    values: np.ndarray
    known: np.ndarray


def drop_neurons(graph: gs.Graph) -> int:
    """W f(V x) becomes W' f(V' x) without the rows of V and columns of W that are zero; what is constant joins a bias.

    A neuron goes where every call that reads it either multiplies it by zeros alone or hears the same number always;
    with it goes whatever is added to it. Weights that are nearly zero are not zero, and one neuron always stays.
    """
    outputs, inside = held(graph), {id(node) for node in graph.nodes}
    order = {id(node): place for place, node in enumerate(graph.nodes)}
    dropped, seen = 0, set[int]()
    for call in reversed(nodes_of(graph, "Conv", "Gemm", "MatMul")):
        found = None if id(call) in seen else channels_of(call, inside, outputs)
        if found is None:
            continue
        seen.update(id(maker) for maker in found.makers)
        found.steps.sort(key=lambda node: order[id(node)])
        dropped += _dropped(found, graph.opset, outputs)
    return dropped


def _dropped(found: Channels, opset: int, outputs: Set[str]) -> int:
    """Take out, in place, what can go. Returns whether anything did."""
    if found.count < 2 or not found.readers:
        return 0
    zero = [_column_zeros(reader) for reader in found.readers]
    silent = any(np.any(_row_zeros(call)) for call in (*found.makers, *filter(is_depthwise, found.steps)))
    said = _what_is_said(found, opset) if silent else {}
    heard = [_heard(reader, said.get(reader.inputs[0].name), found.count, outputs) for reader in found.readers]
    gone = np.all([z | h.known for z, h in zip(zero, heard, strict=True)], axis=0)
    if gone.all():
        gone[0] = False
    if not gone.any():
        return 0
    _take_out(found, gone, heard)
    return 1


def _column_zeros(reader: gs.Node) -> np.ndarray:
    return _zeros(reader, 1 - axis_of(reader))


def _row_zeros(call: gs.Node) -> np.ndarray:
    return _zeros(call, axis_of(call))


def _zeros(call: gs.Node, axis: int) -> np.ndarray:
    """Which channels along an axis of a call's weight have nothing but zeros."""
    weight = peek(call.inputs[1])
    others = tuple(place for place in range(weight.ndim) if place != axis)
    zeros: np.ndarray = ~np.any(weight, axis=others)
    return zeros


# ── what is known of channels ────────────────────────────────────────────────────────────────────


def _what_is_said(found: Channels, opset: int) -> Mapping[str, _Said]:
    said: dict[str, _Said] = {}
    for maker in found.makers:
        said[maker.outputs[0].name] = _Said(_bias(maker, found.count), _row_zeros(maker))
    for step in found.steps:
        given = [said.get(tensor.name) for tensor in step.inputs if tensor.name in found.tensors]
        if None not in given:
            said[step.outputs[0].name] = _passed_on(step, [each for each in given if each], found, opset)
    return said


def _bias(call: gs.Node, count: int) -> np.ndarray:
    dtype = call.inputs[1].dtype
    return peek(call.inputs[2]).astype(dtype) if len(call.inputs) > 2 else np.zeros(count, dtype)


def _passed_on(step: gs.Node, given: Sequence[_Said], found: Channels, opset: int) -> _Said:
    if is_depthwise(step):
        return _convolved(step, given[0], found.count)
    if step.op in ELEMENTWISE:
        known = np.logical_and.reduce([each.known for each in given])
        values = _computed(step, given, found, opset) if known.any() else None
        return _Said(given[0].values, known & False) if values is None else _Said(values, known & np.isfinite(values))
    return _bordered(step, given[0])


def _convolved(step: gs.Node, given: _Said, count: int) -> _Said:
    weight, bias, given = peek(step.inputs[1]), _bias(step, count), _bordered(step, given)
    taps = weight.reshape(count, -1).sum(axis=1, dtype=np.float64)
    values = (np.where(given.known, given.values, 0) * taps + bias).astype(weight.dtype)
    return _Said(values, given.known | _row_zeros(step))


def _bordered(node: gs.Node, given: _Said) -> _Said:
    return _Said(given.values, given.known & (given.values == 0)) if minds_border(node) else given


def _computed(step: gs.Node, given: Sequence[_Said], found: Channels, opset: int) -> np.ndarray | None:
    """What an elementwise step makes of one number a channel."""
    waiting = [np.where(each.known, each.values, 0)[None] for each in given]
    numbers: list[np.ndarray | None] = []
    for tensor in step.inputs:
        if isinstance(tensor, gs.Constant):
            many = prod(tensor.shape) == found.count and found.count > 1
            numbers.append(peek(tensor).reshape(1, -1) if many else peek(tensor))
        else:
            numbers.append(None if tensor.is_empty() else waiting.pop(0))
    with np.errstate(all="ignore"):
        made = evaluate(OnnxExporter.export_node(step), opset, numbers)
    return None if made is None or made[0].size != found.count else made[0].reshape(-1)


def _heard(reader: gs.Node, said: _Said | None, count: int, outputs: Set[str]) -> _Said:
    """What a reader hears that it could as well have in its bias; a product that is given has none behind it."""
    if said is None:
        return _Said(np.zeros(count), np.zeros(count, bool))
    said = _bordered(reader, said)
    if reader.op == "MatMul" and (reader.outputs[0].name in outputs or _bias_behind(reader) is None):
        return _Said(said.values, said.known & (said.values == 0))
    return said


def _bias_behind(product: gs.Node) -> tuple[gs.Node, int] | None:
    """The Add that alone reads a product, and where it has one number a channel."""
    result = product.outputs[0]
    add = result.outputs[0] if len(result.outputs) == 1 else None
    if add is None or add.op != "Add" or result.shape is None or not add.outputs:
        return None
    count, dims = product.inputs[1].shape[1], len(result.shape)
    for place, tensor in enumerate(add.inputs):
        if isinstance(tensor, gs.Constant) and constant_channels(tensor, count, dims, dims - 1):
            return add, place
    return None


# ── taking out ───────────────────────────────────────────────────────────────────────────────────


def _take_out(found: Channels, gone: np.ndarray, heard: Sequence[_Said]) -> None:
    stay = np.flatnonzero(~gone)
    for reader, each in zip(found.readers, heard, strict=True):
        _into_bias(reader, np.where(gone & each.known, each.values, 0))
        _keep(reader.inputs[1], stay, 1 - axis_of(reader))
    for maker in found.makers:
        _keep_neurons(maker, stay)
    for step in found.steps:
        if is_depthwise(step):
            _keep_neurons(step, stay)
            step.attrs["group"] = len(stay)
        elif step.op in ELEMENTWISE:
            _keep_numbers(step, stay, found)
    for name, tensor in found.tensors.items():
        tensor.shape = [len(stay) if place == found.axes[name] else size for place, size in enumerate(tensor.shape)]


def _keep_neurons(call: gs.Node, stay: np.ndarray) -> None:
    for place, constant in enumerate(call.inputs[1:]):
        _keep(constant, stay, axis_of(call) if place == 0 else 0)


def _keep_numbers(step: gs.Node, stay: np.ndarray, found: Channels) -> None:
    for tensor in step.inputs:
        if isinstance(tensor, gs.Constant) and prod(tensor.shape) == found.count:
            _keep(tensor, stay, [size == found.count for size in tensor.shape].index(True))


def _keep(constant: gs.Constant, stay: np.ndarray, axis: int) -> None:
    shape = [len(stay) if place == axis else size for place, size in enumerate(constant.shape)]
    constant.values = resized(constant, shape, lambda numbers: np.take(numbers, stay, axis))


def _into_bias(reader: gs.Node, values: np.ndarray) -> None:
    """Add what constant channels make, in place."""
    if not values.any():
        return
    weight = peek(reader.inputs[1]).astype(np.float64)
    others = tuple(range(2, weight.ndim))
    flat = weight.sum(axis=others) if others else weight
    more = flat @ values if axis_of(reader) == 0 else values @ flat
    node, place = (reader, 2) if reader.op != "MatMul" else _bias_behind(reader) or (reader, 2)
    if len(node.inputs) <= place:
        name = f"{reader.inputs[1].name}.bias"
        node.inputs.append(gs.Constant(name, more.astype(reader.inputs[1].dtype)))
        return
    constant = node.inputs[place]
    constant.values = changed(constant, _adding(more))


def _adding(more: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    return lambda numbers: numbers + more.reshape(numbers.shape)
