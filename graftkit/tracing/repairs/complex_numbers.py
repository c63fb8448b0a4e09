"""Writes calls with complex numbers as calls with pairs of real ones: the ONNX exporter has complex forms for few."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, fx

from graftkit.tracing.repairs.building import Builder

aten = torch.ops.aten
Form = Callable[..., fx.Node | None]


def plain_complex(graph: fx.GraphModule) -> str | None:
    """Applies to calls of the table below that read or give complex numbers.

    What only moves numbers moves pairs [..., 2] as well, with dimensions counted past the pair; sums of products are
    written out. Calls that the exporter does have a form for stay as they are.
    """
    for node in list(graph.graph.nodes):
        form = _FORMS.get(node.target)
        if form is None or not _is_complex(node):
            continue
        with graph.graph.inserting_before(node):
            result = form(Pairs(graph.graph, node), *node.args, **node.kwargs)
        if result is not None:
            _put_in_place(graph.graph, node, result)
    return None


class Pairs(Builder):
    """With the ways between complex numbers and pairs."""

    def pairs(self, value: fx.Node) -> fx.Node:
        """The value as [..., 2]; what was a pair a call ago is taken from there."""
        if value.target is aten.view_as_complex.default:
            return value.args[0]  # type: ignore[return-value]
        if value.meta["val"].is_conj():
            value = self(aten.resolve_conj.default, value)
        return self(aten.view_as_real.default, value)

    def parts(self, value: fx.Node) -> tuple[fx.Node, fx.Node]:
        pairs = self.pairs(value)
        return self(aten.select.int, pairs, -1, 0), self(aten.select.int, pairs, -1, 1)

    def whole(self, pairs: fx.Node) -> fx.Node:
        return self(aten.view_as_complex.default, pairs)

    def joined(self, real: fx.Node, imaginary: fx.Node) -> fx.Node:
        return self.whole(self(aten.stack.default, [real, imaginary], -1))

    @property
    def kind(self) -> torch.dtype:
        """The type that the call gives."""
        return self.origin.meta["val"].dtype  # type: ignore[no-any-return]


def _is_complex(node: fx.Node) -> bool:
    """Whether a call reads complex numbers, or makes them of nothing."""
    read = [value for n in node.all_input_nodes if isinstance(value := n.meta.get("val"), Tensor)]
    values = read or [node.meta["val"]]
    return any(isinstance(value, Tensor) and value.is_complex() for value in values)


def _put_in_place(graph: fx.Graph, node: fx.Node, result: fx.Node) -> None:
    """Have everybody read the result; one of several tensors is a list of pairs, taken one by one."""
    if isinstance(node.meta["val"], Tensor):
        node.replace_all_uses_with(result)
    for user in list(node.users):
        with graph.inserting_before(user):
            build = Pairs(graph, user)
            user.replace_all_uses_with(build.whole(build(operator.getitem, result, user.args[1])))
        graph.erase_node(user)
    graph.erase_node(node)


# ── what moves numbers ───────────────────────────────────────────────────────────────────────────


def _past(dims: Any) -> Any:
    """A dimension, or several, counted in pairs: what counts from the end has one more to pass."""
    return [_past(dim) for dim in dims] if isinstance(dims, list | tuple) else dims - 1 if dims < 0 else dims


def _along(target: Any, *, at: int = 1, default: int | None = None) -> Form:
    """The call itself on pairs; argument `at` is the dimension, or a list of them."""

    def form(build: Pairs, value: fx.Node, *args: Any, **keywords: Any) -> fx.Node | None:
        args = args if len(args) >= at or default is None else (*args, default)
        if keywords or len(args) < at:
            return None
        args = (*args[: at - 1], _past(args[at - 1]), *args[at:])
        result = build(target, build.pairs(value), *args)
        return build.whole(result) if isinstance(result.meta["val"], Tensor) else result

    return form


def _sized(target: Any, last: int) -> Form:
    """The call itself on pairs, whose size in a list of sizes is `last`."""

    def form(build: Pairs, value: fx.Node, sizes: list[Any], **keywords: Any) -> fx.Node:
        return build.whole(build(target, build.pairs(value), [*sizes, last]))

    return form


def _slice(build: Pairs, value: fx.Node, dim: int = 0, *bounds: Any) -> fx.Node | None:
    """A slice has a complex form, which is of no use to what writes into it."""
    if not _is_written(build.origin):
        return None
    return build.whole(build(aten.slice.Tensor, build.pairs(value), _past(dim), *bounds))


def _is_written(node: fx.Node) -> bool:
    writes = any(user.target is aten.copy_.default and user.args[0] is node for user in node.users)
    return writes or any(_is_written(user) for user in node.users if user.target in _WINDOWS)


def _copy(build: Pairs, into: fx.Node, value: fx.Node) -> fx.Node:
    if not value.meta["val"].is_complex():
        value = build(aten.to.dtype, value, build.kind)
    build(aten.copy_.default, build.pairs(into), build.pairs(value))
    return into


def _index(build: Pairs, value: fx.Node, indices: Any) -> fx.Node:
    found = build(aten.index.Tensor, build.pairs(value), indices)
    return build.whole(build(aten.contiguous.default, found))


def _index_select(build: Pairs, value: fx.Node, dim: int, index: fx.Node) -> fx.Node:
    found = build(aten.index_select.default, build.pairs(value), _past(dim), index)
    return build.whole(build(aten.contiguous.default, found))


def _pad(build: Pairs, value: fx.Node, pads: list[Any], mode: str = "constant", fill: Any = None) -> fx.Node | None:
    if mode != "constant" or fill:
        return None
    return build.whole(build(aten.pad.default, build.pairs(value), [0, 0, *pads]))


def _masked_fill(build: Pairs, value: fx.Node, mask: fx.Node, fill: Any) -> fx.Node | None:
    if fill != 0:
        return None
    hidden = build(aten.unsqueeze.default, mask, -1)
    return build.whole(build(aten.masked_fill.Scalar, build.pairs(value), hidden, 0.0))


def _where(build: Pairs, mask: fx.Node, one: fx.Node, other: fx.Node) -> fx.Node:
    chosen = [n if n.meta["val"].is_complex() else build(aten.to.dtype, n, build.kind) for n in (one, other)]
    shown = build(aten.unsqueeze.default, mask, -1)
    result = build(aten.where.self, shown, *(build.pairs(n) for n in chosen))
    return build.whole(build(aten.contiguous.default, result))


def _type_as(build: Pairs, value: fx.Node, other: fx.Node) -> fx.Node:
    return build(aten.to.dtype, value, build.kind)


# ── what makes numbers of nothing ────────────────────────────────────────────────────────────────


def _zeros(build: Pairs, size: list[Any], **keywords: Any) -> fx.Node:
    keywords["dtype"] = build.kind.to_real()
    return build.whole(build(aten.zeros.default, [*size, 2], **keywords))


def _new_zeros(build: Pairs, like: fx.Node, size: list[Any], **keywords: Any) -> fx.Node:
    return _zeros(build, size, device=like.meta["val"].device)


def _zeros_like(build: Pairs, like: fx.Node, **keywords: Any) -> fx.Node | None:
    if keywords.get("dtype", build.kind) != like.meta["val"].dtype:
        return None
    return build.whole(build(aten.zeros_like.default, build.pairs(like)))


# ── what computes ────────────────────────────────────────────────────────────────────────────────


def _linear(build: Pairs, value: fx.Node, weight: fx.Node, bias: fx.Node | None = None) -> fx.Node:
    product = build(aten.matmul.default, value, build(aten.t.default, weight))
    return product if bias is None else build(aten.add.Tensor, product, bias)


def _product(build: Pairs, one: fx.Node, other: fx.Node) -> fx.Node:
    return build(aten.matmul.default, one, other)


def _product_and_sum(build: Pairs, to: fx.Node, one: fx.Node, other: fx.Node, **factors: Any) -> fx.Node | None:
    if any(factor != 1 for factor in factors.values()):
        return None
    return build(aten.add.Tensor, build(aten.matmul.default, one, other), to)


def _einsum(build: Pairs, equation: str, values: list[fx.Node], **keywords: Any) -> fx.Node | None:
    """(a + bi)(c + di) = (ac - bd) + (ad + bc)i, each a sum of products of real numbers."""
    if len(values) != 2:
        return None
    (a, b), (c, d) = (build.parts(value) for value in values)

    def product(one: fx.Node, other: fx.Node) -> fx.Node:
        return build(aten.einsum.default, equation, [one, other])

    real = build(aten.sub.Tensor, product(a, c), product(b, d))
    return build.joined(real, build(aten.add.Tensor, product(a, d), product(b, c)))


def _exp(build: Pairs, value: fx.Node) -> fx.Node:
    real, imaginary = build.parts(value)
    return build(aten.polar.default, build(aten.exp.default, real), imaginary)


def _square(build: Pairs, value: fx.Node) -> fx.Node:
    return build(aten.mul.Tensor, value, value)


def _power(build: Pairs, value: fx.Node, power: Any) -> fx.Node | None:
    return _square(build, value) if power == 2 else None


def _norm(build: Pairs, value: fx.Node, *args: Any, **keywords: Any) -> fx.Node:
    return build(aten.linalg_vector_norm.default, build(aten.abs.default, value), *args)


_WINDOWS = frozenset({aten.slice.Tensor, aten.select.int})  # what can be written into
_FORMS: Mapping[Any, Form] = {
    aten.unsqueeze.default: _along(aten.unsqueeze.default),
    aten.select.int: _along(aten.select.int),
    aten.squeeze.dim: _along(aten.squeeze.dim),
    aten.squeeze.dims: _along(aten.squeeze.dims),
    aten.unbind.int: _along(aten.unbind.int, default=0),
    aten.cumsum.default: _along(aten.cumsum.default),
    aten.chunk.default: _along(aten.chunk.default, at=2, default=0),
    aten.split.Tensor: _along(aten.split.Tensor, at=2, default=0),
    aten.split_with_sizes.default: _along(aten.split_with_sizes.default, at=2, default=0),
    aten.expand.default: _sized(aten.expand.default, 2),
    aten.repeat.default: _sized(aten.repeat.default, 1),
    aten.slice.Tensor: _slice,
    aten.copy_.default: _copy,
    aten.index.Tensor: _index,
    aten.index_select.default: _index_select,
    aten.pad.default: _pad,
    aten.masked_fill.Scalar: _masked_fill,
    aten.where.self: _where,
    aten.type_as.default: _type_as,
    aten.zeros.default: _zeros,
    aten.new_zeros.default: _new_zeros,
    aten.zeros_like.default: _zeros_like,
    aten.linear.default: _linear,
    aten.mm.default: _product,
    aten.bmm.default: _product,
    aten.addmm.default: _product_and_sum,
    aten.baddbmm.default: _product_and_sum,
    aten.einsum.default: _einsum,
    aten.exp.default: _exp,
    aten.square.default: _square,
    aten.pow.Tensor_Scalar: _power,
    aten.linalg_vector_norm.default: _norm,
}
