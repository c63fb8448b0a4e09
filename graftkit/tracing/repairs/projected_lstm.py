"""Writes an LSTM with a projection as one without and a product: the ONNX exporter leaves the projection out unsaid."""

from __future__ import annotations

import operator
from typing import Any

import torch
from torch import fx

from graftkit.core.errors import TraceError
from graftkit.tracing.repairs.building import Builder

aten = torch.ops.aten
_ZEROS = frozenset({aten.zeros.default, aten.zeros_like.default, aten.new_zeros.default})


def plain_lstm(graph: fx.GraphModule) -> str | None:
    """Applies to `nn.LSTM(proj_size=...)`, whose state is h = P m, where m is what an LSTM without projection gives.

    Its gates read W h = (W P) m of the step before: so an LSTM with the recurrent weight W P gives m at every step, if
    h starts from zeros. Each layer becomes a call of its own, with the dropout between them.

    Raises TraceError where h starts from anything else: there need be no m that it comes from.
    """
    for node in [n for n in graph.graph.nodes if n.target is aten.lstm.input and _projects(n)]:
        if node.args[1][0].target not in _ZEROS:
            raise TraceError(
                f"the LSTM with proj_size in {_place(node)!r} is given the state that it starts from, which ONNX has no"
                " form for; let it start from zeros, or leave proj_size out"
            )
        with graph.graph.inserting_before(node):
            results: Any = _Layers(graph.graph, node).results()
        for user in list(node.users):
            user.replace_all_uses_with(results[user.args[1]])
            graph.graph.erase_node(user)
        graph.graph.erase_node(node)
    return None


def _projects(node: fx.Node) -> bool:
    """Whether h is shorter than c."""
    start: Any = node.args[1]
    hidden, cell = (state.meta["val"].shape[-1] for state in start)
    return bool(hidden != cell)


def _place(node: fx.Node) -> str:
    stack = list((node.meta.get("nn_module_stack") or {}).values())
    return str(stack[-1][0]) if stack else ""


class _Layers(Builder):
    """The layers of one call, one after the other, over [time, rows, features]."""

    def __init__(self, graph: fx.Graph, origin: fx.Node):
        super().__init__(graph, origin)
        arguments: Any = origin.args
        self.given, (_, self.cell), self.weights, self.biased, self.count, self.dropout, *rest = arguments
        self.train, self.both, self.batch_first = rest
        self.ways, self.size = 2 if self.both else 1, self.cell.meta["val"].shape[-1]

    def results(self) -> tuple[fx.Node, fx.Node, fx.Node]:
        """What the call gives: h of every step, and the last h and c of every layer and direction."""
        steps = self(aten.transpose.int, self.given, 0, 1) if self.batch_first else self.given
        last: list[fx.Node] = []
        cells: list[fx.Node] = []
        for layer in range(self.count):
            if layer and self.dropout:
                steps = self(aten.dropout.default, steps, self.dropout, self.train)
            steps, hidden, cell = self._layer(layer, steps)
            last, cells = [*last, *hidden], [*cells, cell]
        steps = self(aten.transpose.int, steps, 0, 1) if self.batch_first else steps
        return steps, self(aten.stack.default, last), self(aten.cat.default, cells)

    def _layer(self, layer: int, steps: fx.Node) -> tuple[fx.Node, list[fx.Node], fx.Node]:
        """(h of every step, the last h of each direction, the last c of all) of a layer."""
        weights = [self._direction(self.ways * layer + way) for way in range(self.ways)]
        cell = self(aten.slice.Tensor, self.cell, 0, self.ways * layer, self.ways * (layer + 1))
        start, every = [self(aten.zeros_like.default, cell), cell], [weight for own, _ in weights for weight in own]
        call = self(aten.lstm.input, steps, start, every, self.biased, 1, 0.0, self.train, self.both, False)
        plain, final, cells = (self(operator.getitem, call, index) for index in range(3))
        turns = [turned for _, turned in weights]
        parts = [self(aten.slice.Tensor, plain, -1, self.size * w, self.size * (w + 1)) for w in range(self.ways)]
        products = [self(aten.matmul.default, part, turned) for part, turned in zip(parts, turns, strict=True)]
        steps = self(aten.cat.default, products, -1) if self.both else products[0]
        ends = [self(aten.select.int, final, 0, way) for way in range(self.ways)]
        return steps, [self(aten.matmul.default, e, turned) for e, turned in zip(ends, turns, strict=True)], cells

    def _direction(self, index: int) -> tuple[list[fx.Node], fx.Node]:
        """The weights of an LSTM without projection, and the projection, turned, of one direction of a layer."""
        each = 5 if self.biased else 3
        inward, again, *biases, projection = self.weights[each * index : each * (index + 1)]
        turned = self(aten.t.default, projection)
        recurrent = self(aten.t.default, self(aten.matmul.default, turned, self(aten.t.default, again)))
        return [inward, recurrent, *biases], turned
