"""Moves a live model in place to another device or type of numbers, so that what graphs and modules share stays shared.

`nn.Module` keeps its parameters and only changes their data, but puts new buffers in the place of the old ones, which
graphs that hold these do not see.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, fx
from torch.utils import _pytree as pytree

from graftkit.core.errors import TraceError
from graftkit.core.signature import Port

Convert = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Move:
    """What becomes of devices and types of numbers, as far as they become others."""

    devices: Mapping[torch.device, torch.device]
    types: Mapping[torch.dtype, torch.dtype]

    @staticmethod
    def of(tensors: Iterable[Tensor], convert: Convert, name: str) -> Move:
        """What a conversion makes of these. Raises TraceError where it can do so in no tensor's own place."""
        kinds = {(tensor.device, tensor.dtype) for tensor in tensors}
        made = {kind: _tried(torch.empty(0, device=kind[0], dtype=kind[1]), convert, name) for kind in kinds}
        devices = {device: found.device for (device, _), found in made.items() if found.device != device}
        types = {dtype: found.dtype for (_, dtype), found in made.items() if found.dtype != dtype}
        return Move(devices, types)

    def check(self, graphs: Iterable[fx.GraphModule], name: str) -> None:
        """Raise TraceError where a graph itself says a type that becomes another: it may be meant to stay."""
        for node in (node for graph in graphs for node in graph.graph.nodes):
            held = [each for each in pytree.tree_leaves((node.args, node.kwargs)) if isinstance(each, torch.dtype)]
            for dtype in held:
                if dtype in self.types:
                    raise TraceError(
                        f"{name}: {node.name!r} in its graphs computes in {dtype}, whatever the parameters are;"
                        f" convert the module to {self.types[dtype]} and trace it again"
                    )

    def redirect(self, graph: fx.GraphModule) -> None:
        """Let what the graph makes anew, such as positions, be made where the parameters are now, in place."""

        def there(value: Any) -> Any:
            return self.devices.get(value, value) if isinstance(value, torch.device) else value

        if not self.devices:
            return
        for node in graph.graph.nodes:
            node.args, node.kwargs = (fx.node.map_aggregate(each, there) for each in (node.args, node.kwargs))
        graph.recompile()

    def ports(self, ports: Sequence[Port]) -> tuple[Port, ...]:
        """The same inputs or outputs in their new types."""
        names = {str(old).removeprefix("torch."): str(new).removeprefix("torch.") for old, new in self.types.items()}
        return tuple(replace(port, dtype=names.get(port.dtype, port.dtype)) for port in ports)


def convert_in_place(tensors: Iterable[Tensor], convert: Convert) -> None:
    """Give each tensor, and its gradient, what the conversion makes of it."""
    with torch.no_grad():
        for tensor in {id(each): each for each in tensors}.values():
            tensor.data = convert(tensor)
            if tensor.is_leaf and tensor.grad is not None:
                tensor.grad.data = convert(tensor.grad)


def _tried(probe: Tensor, convert: Convert, name: str) -> Tensor:
    found = convert(probe)
    try:
        probe.data = found
    except (RuntimeError, TypeError):
        raise TraceError(
            f"{name} cannot be moved to {found.device}, where its graphs and its module could not share what they"
            f' hold; trace it there: gk.trace(..., device="{found.device}")'
        ) from None
    return found
