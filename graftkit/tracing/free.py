"""Which sizes of the inputs stay free, and what they are called."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

import sympy
import torch
from torch import Tensor, fx
from torch.export import Dim

from graftkit.core.errors import TraceError
from graftkit.core.signature import BATCH, Port

Free = Literal["auto", "batch", "none"]  # batch and whatever else the model leaves open; batch alone; nothing
_BY_RANK: Mapping[int, tuple[str, ...]] = {
    2: ("length",),
    3: ("length", "length"),
    4: ("channels", "height", "width"),
    5: ("channels", "depth", "height", "width"),
}


class SizeError(TraceError):
    """Another size than the batch's cannot be left free."""


def dynamic_shapes(inputs: Sequence[Tensor], free: Free) -> tuple[dict[int, Any] | None, ...]:
    """What tells `torch.export` which sizes are free; the batch is the first size of the first input."""
    if free == "none":
        return tuple(None for _ in inputs)
    rows = next((x.shape[0] for x in inputs if x.ndim), 0)
    return tuple(_sizes(tensor, rows, free) for tensor in inputs)


def _sizes(tensor: Tensor, rows: int, free: Free) -> dict[int, Any]:
    other = Dim.AUTO if free == "auto" else Dim.STATIC
    sizes: dict[int, Any] = dict.fromkeys(range(tensor.ndim), other)
    if tensor.ndim:
        sizes[0] = Dim.DYNAMIC if tensor.shape[0] == rows else other
    return sizes


class Names:
    """What the free sizes of a graph's inputs are called.

    A symbol has one name wherever it stands. Symbols of one place that have one size in the example (the length of
    tokens and of their mask) have one name, too: a graph need not say that they are equal.
    """

    def __init__(self, graph: fx.GraphModule, inputs: Sequence[Tensor]):
        self.values = [node.meta["val"] for node in tensor_placeholders(graph)]
        self.names: dict[Any, str] = {}
        known: dict[tuple[int, int], str] = {}
        for value, example in zip(self.values, inputs, strict=True):
            for dim, symbol in _symbols(value):
                place = (dim, example.shape[dim])
                if symbol not in self.names:
                    self.names[symbol] = known.get(place) or self._new(value, dim)
                known.setdefault(place, self.names[symbol])

    def port(self, name: str, value: Tensor) -> Port:
        """The description of a tensor of the graph."""
        return Port(name, str(value.dtype).removeprefix("torch."), tuple(self._size(size) for size in value.shape))

    def _new(self, value: Tensor, dim: int) -> str:
        if not self.names and dim == 0:
            return BATCH
        usual = _BY_RANK.get(value.ndim, ())
        name = usual[dim - 1] if 0 < dim <= len(usual) else f"size_{dim}"
        taken = set(self.names.values())
        return next(n for n in (name, *(f"{name}_{i}" for i in range(1, 1000))) if n not in taken)

    def _size(self, size: Any) -> int | str:
        fixed = fixed_size(size)
        if fixed is not None:
            return fixed
        expression = size.node.expr
        return str(expression.subs({s: sympy.Symbol(n) for s, n in self.names.items() if s in expression.free_symbols}))


def fixed_size(size: int | torch.SymInt) -> int | None:
    """A size's number, None where it is free."""
    if isinstance(size, int):
        return size
    return int(size.node.expr) if size.node.expr.is_number else None


def tensor_placeholders(graph: fx.GraphModule) -> list[fx.Node]:
    """The graph's inputs that are tensors, in order."""
    return [n for n in graph.graph.nodes if n.op == "placeholder" and isinstance(n.meta.get("val"), Tensor)]


def _symbols(value: Tensor) -> Iterator[tuple[int, Any]]:
    for dim, size in enumerate(value.shape):
        if isinstance(size, torch.SymInt) and size.node.expr.is_Symbol:
            yield dim, size.node.expr


def resized(inputs: Sequence[Tensor], ports: Sequence[Port], name: str, size: int) -> tuple[Tensor, ...]:
    """The inputs with every dimension called `name` brought to `size`, by repeating or cutting what is there."""
    found = []
    for tensor, port in zip(inputs, ports, strict=True):
        for dim, called in enumerate(port.shape):
            if called == name:
                index = torch.arange(size, device=tensor.device) % tensor.shape[dim]
                tensor = tensor.index_select(dim, index)
        found.append(tensor)
    return tuple(found)
