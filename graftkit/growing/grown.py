"""A model that grows, called the way the module was that it was traced from."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields, is_dataclass
from enum import Enum
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from graftkit.calling import Calling, flat_outputs
from graftkit.core.errors import TraceError
from graftkit.model import GraftedModel


@dataclass(frozen=True)
class _Place:
    """Where a tensor goes among the arguments."""

    index: int


class Grown(nn.Module):
    """Takes the arguments and gives the outputs of the module it grew from, dendrites included.

    It stays one object for life: dendrites come and go within it. Arguments that are no tensors must be those of the
    example, because the graphs hold them.

    Attributes:
        grafted: the graphs and their dendrites.
    """

    def __init__(self, grafted: GraftedModel):
        super().__init__()
        source, calling = grafted.traced.source, grafted.traced.calling
        if source is None or calling is None:
            raise TraceError("a training loop needs a live module; an exported program has none")
        self.grafted = grafted
        self._name = type(source).__name__
        self._signature = _signature(source)
        bound = self._bound(*_example(calling))
        self._wanted, self._spec = pytree.tree_flatten(bound)
        first = list(bound) if self._signature is None else list(self._signature.parameters)[: len(bound)]
        self._plain = list(bound.values()) == [_Place(index) for index in range(len(bound))] and list(bound) == first
        self._templates = {mode: _template(grafted, source, calling, mode) for mode in (True, False)}
        self.train(source.training)

    @property
    def _ddp_params_and_buffers_to_ignore(self) -> list[str]:
        """What DistributedDataParallel leaves alone: dendrites, which average their gradients themselves."""
        return [name for name, _ in self.named_parameters() if name.startswith("grafted.dendrites.")]

    def forward(self, *args: Any, **keywords: Any) -> Any:
        """What the module would give, with the dendrites that there are. Raises TraceError for other arguments."""
        if self._plain and not keywords and len(args) == len(self._wanted) and all(map(_is_tensor, args)):
            found = self.grafted.outputs(*args)
        else:
            found = self.grafted.outputs(*self._tensors(args, keywords))
        template = self._templates[self.training]
        return found[0] if isinstance(template, Tensor) else _rebuilt(template, iter(found))

    def _bound(self, args: tuple[Any, ...], keywords: Mapping[str, Any]) -> dict[str, Any]:
        """The arguments by name, those that are left to their defaults or None left out."""
        if self._signature is None:
            return {"args": args, **keywords}
        try:
            found = self._signature.bind(*args, **keywords)
        except TypeError as error:
            raise TraceError(f"{self._name}: {error}") from None
        defaults = {name: p.default for name, p in self._signature.parameters.items()}
        return {name: value for name, value in found.arguments.items() if not _same(value, defaults[name])}

    def _tensors(self, args: tuple[Any, ...], keywords: Mapping[str, Any]) -> list[Tensor]:
        """The tensors among the arguments, in the order in which the graphs take them."""
        leaves, spec = pytree.tree_flatten(self._bound(args, keywords))
        if spec != self._spec:
            raise TraceError(
                f"{self._name} was traced with the arguments {self._text(self._spec, self._wanted)}, and is now called"
                f" with {self._text(spec, leaves)}; give the Grower example inputs like those of your loop"
            )
        found: dict[int, Tensor] = {}
        for wanted, leaf in zip(self._wanted, leaves, strict=True):
            if isinstance(wanted, _Place) and isinstance(leaf, Tensor):
                found[wanted.index] = leaf
            elif isinstance(wanted, _Place) or not _same(leaf, wanted):
                then = "a tensor" if isinstance(wanted, _Place) else repr(wanted)
                raise TraceError(
                    f"{self._name} was traced with {then} and is now given {_short(leaf)}; its graphs hold that"
                )
        return [found[index] for index in range(len(found))]

    def _text(self, spec: pytree.TreeSpec, leaves: list[Any]) -> str:
        shapes = ["a tensor" if isinstance(leaf, _Place | Tensor) else _short(leaf) for leaf in leaves]
        named = pytree.tree_unflatten(shapes, spec)
        return ", ".join(f"{name} ({value})" for name, value in named.items())


def _example(calling: Calling) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The example's arguments, places where the tensors go."""
    return calling.arguments([_Place(index) for index in range(len(calling.places))])


def _signature(module: nn.Module) -> inspect.Signature | None:
    try:
        return inspect.signature(module.forward)
    except (TypeError, ValueError):  # TorchScript
        return None


def _template(grafted: GraftedModel, source: nn.Module, calling: Calling, training: bool) -> Any:
    """What the module gives for the example in one of its modes; its buffers and random numbers stay as they are."""
    was, buffers = source.training, [(b, b.clone()) for b in source.buffers()]
    source.train(training)
    device = grafted.traced.inputs[0].device
    try:
        with torch.no_grad(), torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            args, keywords = calling.arguments([tensor.clone() for tensor in grafted.traced.inputs])
            output = source(*args, **keywords)
    finally:
        source.train(was)
        with torch.no_grad():
            for buffer, before in buffers:
                buffer.copy_(before)
    template = _emptied(output)
    given, gives = len(flat_outputs(output).tensors), _count(grafted, training)
    if given != gives:
        mode = "training" if training else "evaluation"
        raise TraceError(f"{type(source).__name__} gives {given} tensors in {mode}, and its graph {gives}")
    return template


def _count(grafted: GraftedModel, training: bool) -> int:
    graph = grafted.graphs[0 if training else 1].graph
    (node,) = [node for node in graph.nodes if node.op == "output"]
    return len(node.args[0]) if isinstance(node.args[0], list | tuple) else 1


def _emptied(value: Any) -> Any:
    """An output without its numbers: tensors without data, None for what a graph cannot give."""
    if isinstance(value, Tensor):
        return torch.empty(0, device="meta")
    members = _members(value)
    if members is None:
        return value if value is None or isinstance(value, str | bool | Enum) else None
    return _with(value, {key: _emptied(member) for key, member in members.items()})


def _rebuilt(template: Any, tensors: Iterator[Tensor]) -> Any:
    """The template with tensors in their places, in the order of `calling.flat_outputs`."""
    if isinstance(template, Tensor):
        return next(tensors)
    members = _members(template)
    if members is None:
        return template
    return _with(template, {key: _rebuilt(member, tensors) for key, member in members.items()})


def _members(value: Any) -> dict[Any, Any] | None:
    """What a container holds, by key; None for what is none."""
    if isinstance(value, Mapping):
        return dict(value.items())
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: getattr(value, field.name) for field in fields(value)}
    if isinstance(value, tuple | list):
        return dict(enumerate(value))
    return None


def _with(value: Any, members: Mapping[Any, Any]) -> Any:
    """A container like this one with other members."""
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*members.values())
    if isinstance(value, tuple | list):
        return type(value)(members.values())
    new = copy.copy(value)
    for key, member in members.items():
        if isinstance(value, Mapping):
            new[key] = member
        else:
            object.__setattr__(new, key, member)
    return new


def _same(value: Any, other: Any) -> bool:
    """Whether two arguments are the same constant."""
    if isinstance(value, Tensor) or isinstance(other, Tensor):
        return value is other
    return type(value) is type(other) and bool(value == other)


def _is_tensor(value: Any) -> bool:
    return isinstance(value, Tensor)


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) < 40 else f"a {type(value).__name__}"
