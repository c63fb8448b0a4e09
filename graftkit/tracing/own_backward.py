"""Keeps the backward pass of a model's own `torch.autograd.Function`, which torch.export drops without a word.

A straight-through estimator would pass no error on, a gradient reversal would not reverse. While the module is
captured each call of such a function becomes one opaque operator, and afterwards a part of the graph that calls it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from unittest import mock

import torch
from torch import Tensor, fx, nn
from torch.autograd import Function
from torch.autograd.function import FunctionCtx
from torch.fx.experimental.proxy_tensor import disable_proxy_modes_tracing
from torch.library import Library
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

NAMESPACE = "graftkit_own_backward"
_LAYERS = frozenset({"aten::mm", "aten::addmm", "aten::linear", "aten::convolution"})


@dataclass(frozen=True, eq=False)
class _Call:
    """A function and its arguments, the tensors among them left out."""

    function: type[Function]
    constants: tuple[Any, ...]
    places: tuple[int, ...]

    def arguments(self, tensors: Sequence[Tensor]) -> list[Any]:
        """All arguments, given the tensors."""
        filled = list(self.constants)
        for place, tensor in zip(self.places, tensors, strict=True):
            filled[place] = tensor
        return filled

    def forward(self, tensors: Sequence[Tensor]) -> tuple[Any, FunctionCtx]:
        """What the forward pass gives, and the context that it filled."""
        context: Any = FunctionCtx()
        context.needs_input_grad = (True,) * len(self.constants)
        given = self.arguments(tensors)
        apart = self.function.setup_context is not Function.setup_context
        with torch.no_grad():
            found = self.function.forward(*given) if apart else self.function.forward(context, *given)
        return found, context


class OwnBackward(nn.Module):
    """A part of a graph that calls a function of the model's own: tensors in, a tuple of tensors out."""

    def __init__(self, call: _Call):
        super().__init__()
        self.call = call

    def forward(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        found = self.call.function.apply(*self.call.arguments(tensors))  # type: ignore[no-untyped-call]
        return tuple(leaf for leaf in pytree.tree_leaves(found) if isinstance(leaf, Tensor))

    def extra_repr(self) -> str:
        return self.call.function.__qualname__


@contextmanager
def own_backward_kept() -> Iterator[list[str]]:
    """While inside, calls of a model's own functions are kept whole; gives what a user has to know where they cannot.

    `put_in_place` has to follow while still inside: the operators are gone with it.
    """
    notes: list[str] = []
    libraries: list[Library] = []
    plain = Function.apply.__func__  # type: ignore[attr-defined]

    def apply(function: type[Function], *args: Any, **options: Any) -> Any:
        if function.__module__.partition(".")[0] == "torch" or options or not _tracing(args):
            return plain(function, *args, **options)
        places = tuple(place for place, value in enumerate(args) if isinstance(value, Tensor))
        call = _Call(function, tuple(None if i in places else x for i, x in enumerate(args)), places)
        tensors = [args[place] for place in places]
        refusal = _refusal(call, tensors)
        if refusal:
            notes.append(f"training goes without the backward pass that {function.__qualname__} has: {refusal}")
            return plain(function, *args)
        return _kept(call, tensors, libraries)

    with mock.patch.object(Function, "apply", classmethod(apply)):
        yield notes


def _tracing(args: Sequence[Any]) -> bool:
    return any(isinstance(value, torch._subclasses.FakeTensor) for value in args)


def _refusal(call: _Call, tensors: Sequence[Tensor]) -> str | None:
    """Why a call cannot be kept whole, None if it can."""
    for value in pytree.tree_leaves(call.constants):
        if isinstance(value, Tensor | nn.Module | torch.SymInt | torch.SymFloat | torch.SymBool):
            return f"it takes a {type(value).__name__} that no graph could hand to it"
    with disable_proxy_modes_tracing(), _Operators() as used:
        _, context = call.forward([tensor.clone() for tensor in tensors])
    if used.names & _LAYERS:
        return "it makes Linear or Conv calls, which stay visible instead"
    return "it writes into its arguments" if getattr(context, "dirty_tensors", ()) else None


class _Operators(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Notes which operators are called."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.names: set[str] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.names.add(func.name().partition(".")[0])
        return func(*args, **(kwargs or {}))


def _kept(call: _Call, tensors: Sequence[Tensor], libraries: list[Library]) -> Any:
    """What the call gives, recorded as one operator that knows it."""
    with disable_proxy_modes_tracing():
        leaves, structure = pytree.tree_flatten(call.forward(tensors)[0])
    found = iter(_operator(call, libraries)(list(tensors)))
    return pytree.tree_unflatten([next(found) if isinstance(x, Tensor) else x for x in leaves], structure)


def _operator(call: _Call, libraries: list[Library]) -> Any:
    library = Library(NAMESPACE, "FRAGMENT")  # type: ignore[no-untyped-call]
    libraries.append(library)
    name = f"at_{id(library)}"
    library.define(f"{name}(Tensor[] tensors) -> Tensor[]")  # type: ignore[no-untyped-call]

    def fake(tensors: Sequence[Tensor]) -> list[Tensor]:
        found, _ = call.forward(tensors)
        return [leaf.clone() for leaf in pytree.tree_leaves(found) if isinstance(leaf, Tensor)]

    torch.library.register_fake(f"{NAMESPACE}::{name}", fake, lib=library)
    operator = getattr(getattr(torch.ops, NAMESPACE), name).default
    operator.call = call
    return operator


def put_in_place(graph: fx.GraphModule) -> None:
    """Turn the operators into parts of the graph that call the functions, in place."""
    for count, node in enumerate([n for n in graph.graph.nodes if _is_kept(n)]):
        name = f"own_backward_{count}"
        graph.add_submodule(name, OwnBackward(node.target.call))
        with graph.graph.inserting_before(node):
            call = graph.graph.call_module(name, tuple(node.args[0]))
        call.meta = dict(node.meta)
        node.replace_all_uses_with(call)
        graph.graph.erase_node(node)


def _is_kept(node: fx.Node) -> bool:
    return isinstance(node.target, torch._ops.OpOverload) and node.target.namespace == NAMESPACE
