"""How a module is called: flat tensors in the order of its arguments in, the tensors of its output out."""

from __future__ import annotations

import inspect
import keyword
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields, is_dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from graftkit.core.errors import TraceError

SINGLE = "output"  # what the output is called where there is one, without a name
_POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


class OutputError(TraceError):
    """The output that was asked for is not there."""


@dataclass(frozen=True, eq=False)
class Calling:
    """What an example's arguments look like around the tensors in them.

    Attributes:
        names: of the tensors, in order; each is an identifier.
        leaves: everything in the arguments, None where a tensor goes.
        spec: the shape of (positional arguments, keyword arguments).
    """

    names: tuple[str, ...]
    leaves: tuple[Any, ...]
    places: tuple[int, ...]
    spec: pytree.TreeSpec

    def arguments(self, tensors: Sequence[Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Positional and keyword arguments with these tensors in their places."""
        leaves = list(self.leaves)
        for place, tensor in zip(self.places, tensors, strict=True):
            leaves[place] = tensor
        args, keywords = pytree.tree_unflatten(leaves, self.spec)
        return tuple(args), dict(keywords)

    def run(self, module: Callable[..., Any], tensors: Sequence[Tensor]) -> Outputs:
        """The module's output for these inputs, flat."""
        args, keywords = self.arguments(tensors)
        return flat_outputs(module(*args, **keywords))


@dataclass(frozen=True, eq=False)
class Arguments:
    """An example with positional and keyword arguments."""

    args: tuple[Any, ...]
    keywords: Mapping[str, Any]


@dataclass(frozen=True, eq=False)
class Outputs:
    """The tensors in a module's output, by name; and the types of what else was in it."""

    tensors: Mapping[str, Tensor]
    others: tuple[str, ...] = ()


def calling_of(module: nn.Module, example: Any) -> tuple[Calling, tuple[Tensor, ...]]:
    """How a module takes an example, and the example's tensors in that order.

    Args:
        module: its `forward` says what the arguments are called.
        example: a tensor, a tuple of positional arguments, a dict of keyword arguments, or `Arguments`; they may
            hold tensors in lists, tuples and dicts, and anything else, which stays as it is.

    Raises:
        TraceError: there is no tensor in it, or `forward` does not take such arguments.
    """
    args, keywords = _bound(module, example)
    leaves, spec = pytree.tree_flatten((args, keywords))
    places = tuple(index for index, leaf in enumerate(leaves) if isinstance(leaf, Tensor))
    if not places:
        raise TraceError("the example holds no tensor; give a tensor, a tuple of them, or a dict of them by name")
    names = _distinct([_identifier(name) for name in _leaf_names(module, args, keywords)])
    rest = tuple(None if isinstance(leaf, Tensor) else leaf for leaf in leaves)
    calling = Calling(tuple(names[place] for place in places), rest, places, spec)
    return calling, tuple(leaves[place] for place in places)


@contextmanager
def flat_forward(module: nn.Module, calling: Calling) -> Iterator[list[Outputs]]:
    """While inside, `forward` takes flat tensors and gives the tensors of its output, one alone or a tuple.

    The module itself stays the root of what is exported, so modules and parameters keep their names. What each call
    gave is appended to the list.
    """
    original = module.forward
    seen: list[Outputs] = []

    def forward(*tensors: Tensor) -> Any:
        found = calling.run(original, tensors)
        if not found.tensors:
            raise TraceError(f"{type(module).__name__} returns no tensor ({', '.join(found.others) or 'nothing'})")
        seen.append(found)
        values = tuple(found.tensors.values())
        return values[0] if len(values) == 1 else values

    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
    forward.__signature__ = inspect.Signature([inspect.Parameter(n, kind) for n in calling.names])  # type: ignore[attr-defined]
    own = module.__dict__.get("forward")
    module.__dict__["forward"] = forward
    try:
        yield seen
    finally:
        if own is None:
            del module.__dict__["forward"]
        else:
            module.__dict__["forward"] = own


def flat_outputs(output: Any) -> Outputs:
    """The tensors in a tensor, tuple, list, dict or dataclass, by name; None is passed over.

    One tensor is called "output", members of a tuple "output_0", of a dict or dataclass by their name, further in
    "name.0".
    """
    if isinstance(output, Tensor):
        return Outputs({SINGLE: output})
    members = [(".".join(path), leaf) for path, leaf in _members(output, ()) if leaf is not None]
    found = [(f"{SINGLE}_{name}" if name[0].isdigit() else name, leaf) for name, leaf in members if _is_tensor(leaf)]
    names = _distinct([name for name, _ in found])
    others = [_kind(leaf) for _, leaf in members if not _is_tensor(leaf)]
    return Outputs(dict(zip(names, (leaf for _, leaf in found), strict=True)), tuple(dict.fromkeys(others)))


def _is_tensor(leaf: Any) -> bool:
    return isinstance(leaf, Tensor)


def _kind(leaf: Any) -> str:
    """The type of what is no tensor; torch traces whole numbers that depend on a size as SymInt."""
    name = type(leaf).__name__
    return name.removeprefix("Sym").lower() if isinstance(leaf, torch.SymInt | torch.SymFloat | torch.SymBool) else name


def choose_output(outputs: Mapping[str, Tensor], wanted: str | None) -> str:
    """Which output feeds the loss: the one asked for, the only one, a customary name, or the first with a gradient.

    Raises OutputError where there is none of that name, TraceError where there is none that could be trained.
    """
    if wanted is not None:
        if wanted not in outputs:
            raise OutputError(f"the model has no output {wanted!r}; it gives {', '.join(outputs)}")
        return wanted
    floating = [name for name, value in outputs.items() if value.is_floating_point()]
    if not floating:
        raise TraceError(f"no output of the model holds floating-point numbers: {', '.join(outputs)}")
    return next((name for name in _CUSTOMARY if name in floating), floating[0])


_CUSTOMARY = ("logits", "prediction_logits", "out", SINGLE, "last_hidden_state", "prediction", "pred")


def _bound(module: nn.Module, example: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    if isinstance(example, Arguments):
        return example.args, dict(example.keywords)
    if isinstance(example, Tensor):
        return (example,), {}
    parameters = _parameters(module)
    if isinstance(example, Mapping):
        named = dict(example)
        open_ended = any(p.kind is p.VAR_KEYWORD for p in parameters)
        unknown = [name for name in named if name not in {p.name for p in parameters}]
        if unknown and not open_ended:
            if len(_required(parameters)) == 1:  # forward(batch), with a dict as its one argument
                return (named,), {}
            takes = ", ".join(p.name for p in parameters)
            raise TraceError(f"{type(module).__name__} has no argument {unknown[0]!r}; its forward takes {takes}")
        return (), named
    values = tuple(example)
    room = sum(p.kind in _POSITIONAL for p in parameters)
    if len(values) > room and not any(p.kind is p.VAR_POSITIONAL for p in parameters):
        if room == 1:  # forward(tensors), with a list as its one argument
            return (list(values),), {}
        raise TraceError(f"{type(module).__name__} takes {room} arguments, but the example has {len(values)}")
    return values, {}


def _required(parameters: Sequence[inspect.Parameter]) -> list[inspect.Parameter]:
    return [p for p in parameters if p.kind in _POSITIONAL and p.default is p.empty]


def _parameters(module: nn.Module) -> list[inspect.Parameter]:
    if isinstance(module, torch.jit.ScriptModule):
        schema = module.forward.schema.arguments[1:]  # type: ignore[attr-defined]
        kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
        return [inspect.Parameter(_identifier(argument.name), kind) for argument in schema]
    try:
        return list(inspect.signature(module.forward).parameters.values())
    except (TypeError, ValueError):
        return [inspect.Parameter("inputs", inspect.Parameter.VAR_POSITIONAL)]


def _leaf_names(module: nn.Module, args: tuple[Any, ...], keywords: Mapping[str, Any]) -> list[str]:
    """A name for every leaf of the arguments: the argument's, and the way to it where it is nested."""
    parameters = [p for p in _parameters(module) if p.kind in (*_POSITIONAL, inspect.Parameter.VAR_POSITIONAL)]
    names = []
    for (side, *way), _ in pytree.tree_flatten_with_path((args, keywords))[0]:
        keys = [_key(step) for step in way]
        if _key(side) == "0":
            index = int(keys[0])
            spread = index >= len(parameters) or parameters[index].kind is inspect.Parameter.VAR_POSITIONAL
            keys[0] = f"input_{index}" if spread else parameters[index].name
        names.append("_".join(keys))
    return names


def _key(step: Any) -> str:
    for attribute in ("idx", "key", "name"):
        if hasattr(step, attribute):
            return str(getattr(step, attribute))
    return str(step)


def _identifier(name: str) -> str:
    plain = re.sub(r"\W", "_", name, flags=re.ASCII) or "input"
    return plain if plain.isidentifier() and not keyword.iskeyword(plain) else f"input_{plain}"


def _distinct(names: Sequence[str]) -> list[str]:
    taken: set[str] = set()
    found = []
    for name in names:
        unique, count = name, 1
        while unique in taken:
            unique, count = f"{name}_{count}", count + 1
        taken.add(unique)
        found.append(unique)
    return found


def _members(value: Any, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Every leaf with the way to it."""
    if isinstance(value, Mapping):
        steps = [(str(key), member) for key, member in value.items()]
    elif is_dataclass(value) and not isinstance(value, type):
        steps = [(field.name, getattr(value, field.name)) for field in fields(value)]
    elif isinstance(value, tuple) and hasattr(value, "_fields"):
        steps = list(zip(value._fields, value, strict=True))
    elif isinstance(value, tuple | list):
        steps = [(str(index), member) for index, member in enumerate(value)]
    else:
        yield path or (SINGLE,), value
        return
    for step, member in steps:
        yield from _members(member, (*path, step))
