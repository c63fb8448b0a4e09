"""Describes a Linear or Conv call of a graph as a site: its sizes, its geometry, what follows it."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

import torch
from torch import Tensor, fx

from graftkit.core.signature import BATCH
from graftkit.core.sites import Geometry, Site
from graftkit.tracing.dataflow import describe, followers
from graftkit.tracing.free import Names, fixed_size


class Sizes:
    """What a graph's free sizes are for one row of data of the example."""

    def __init__(self, graph: fx.GraphModule, inputs: Sequence[Tensor]):
        names = Names(graph, inputs).names
        self.batch = {symbol for symbol, name in names.items() if name == BATCH}

    def per_row(self, size: Any) -> int:
        """A size for one row of data: the batch counts as one, every other free size as in the example."""
        if isinstance(size, int):
            return size
        expression, environment = size.node.expr, size.node.shape_env
        values = {
            symbol: 1 if symbol in self.batch else _hint(environment, symbol) for symbol in expression.free_symbols
        }
        return int(expression.subs(values))

    def batch_dim(self, shape: tuple[Any, ...]) -> int | None:
        """Which dimension counts rows; None where rows and positions are merged in one."""
        for dim, size in enumerate(shape):
            if isinstance(size, torch.SymInt) and size.node.expr.free_symbols & self.batch:
                return dim if size.node.expr.is_Symbol or len(shape) > 2 else None
        return None


def describe_site(
    key: str, path: str, operator: str, arguments: tuple[Any, Any, Any], weight: str, node: fx.Node, sizes: Sizes
) -> Site:
    """The site that a call is.

    Args:
        key, path: what it is called, and the module that makes the call.
        operator: "linear", "conv2d", ...
        arguments: the nodes of (input, weight, bias).
        weight: the name of the parameter that its weight is, or is computed from.
        node: the call.
        sizes: of its graph.
    """
    source, weight_node, bias_node = arguments
    shape, kernel = tuple(node.meta["val"].shape), weight_node.meta["val"]
    geometry = None if operator == "linear" else _geometry(node, kernel)
    channel_dim = len(shape) - 1 if geometry is None else 1
    positions = prod(sizes.per_row(size) for dim, size in enumerate(shape) if dim != channel_dim)
    read = source.meta["val"].shape
    transposed = operator.startswith("conv_transpose")
    touched = prod(sizes.per_row(s) for d, s in enumerate(read) if d != 1) if transposed else positions
    numbers = prod(kernel.shape)
    return Site(
        key=key,
        path=path,
        operator=operator,
        in_channels=int(read[-1] if geometry is None else read[1]),
        out_channels=int(shape[channel_dim]),
        geometry=geometry,
        weight=weight,
        parameters=numbers + (prod(bias_node.meta["val"].shape) if isinstance(bias_node, fx.Node) else 0),
        macs=numbers * touched,
        input_shape=tuple(-1 if (size := fixed_size(s)) is None else size for s in read),
        output_shape=tuple(-1 if (size := fixed_size(s)) is None else size for s in shape),
        positions=positions,
        batch_dim=sizes.batch_dim(shape),
        followed_by=tuple(describe(f) for f in followers(node)),
    )


def _hint(environment: Any, symbol: Any) -> int:
    try:
        return int(environment.optimization_hint(symbol, fallback=1))
    except Exception:  # of a program from a file, and of a size that only the data decide
        return 1


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
        kernel=tuple(int(size) for size in weight.shape[2:]),
        stride=spread("stride", 1),
        padding=padding if isinstance(padding, str) else spread("padding", 0),
        dilation=spread("dilation", 1),
        groups=int(given.get("groups", 1)),
        output_padding=spread("output_padding", 0) if "output_padding" in names else (),
    )
