"""Captures a module in one mode as a `torch.fx` graph that shares the module's own parameters."""

from __future__ import annotations

import contextlib
import re
import sys
import warnings
from collections import OrderedDict, defaultdict, deque
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any
from unittest import mock

import torch
from torch import Tensor, fx, nn
from torch.export import ExportedProgram
from torch.nn.parameter import UninitializedBuffer

from graftkit.calling import Calling, flat_forward
from graftkit.core.errors import TraceError
from graftkit.tracing.exporting import exported
from graftkit.tracing.free import Free, SizeError
from graftkit.tracing.own_backward import own_backward_kept, put_in_place
from graftkit.tracing.reasons import reason
from graftkit.tracing.repairs import GRAPH_REPAIRS, MODULE_REPAIRS
from graftkit.tracing.scripted import capture_scripted
from graftkit.tracing.unlifting import output_nodes, unlift

_DATA_DEPENDENT = re.compile(r"data-dependent|GuardOnDataDependent|\bu\d+\b")
_CUDNN = 65_535  # rows to which its batch norm is used in training; to 131,070 of vectors, 880,801 in evaluation
_NO_VIEW = ("Cannot view a tensor", "a leaf Variable that requires grad")


@dataclass(frozen=True)
class How:
    """A way to capture: which sizes stay free, whether gradients are recorded, whether TorchScript reads the code."""

    free: Free = "auto"
    gradients: bool = True
    scripted: bool = False


@dataclass(frozen=True, eq=False)
class Captured:
    """A graph, the names of its outputs, the way it was captured, and what a user has to know of that.

    `limits` are the smallest and the largest value of each free size for which the graph is the model, `guards` what
    else tracing took for granted of sizes, as torch.export writes it.
    """

    graph: fx.GraphModule
    outputs: tuple[str, ...]
    how: How
    notes: tuple[str, ...] = ()
    limits: Mapping[Any, tuple[int, int | None]] = field(default_factory=dict)
    guards: tuple[str, ...] = ()


def capture(module: nn.Module, calling: Calling, inputs: tuple[Tensor, ...], *, train: bool, how: How) -> Captured:
    """The module's graph in one mode, in this way or the first other that works; the module stays as it was.

    Raises TraceError, with the reason why the first way failed; SizeError at once.
    """
    first: TraceError | None = None
    waiting, tried = [how], set()
    while waiting:
        way = waiting.pop(0)
        tried.add(way)
        try:
            return capture_as(module, calling, inputs, train=train, how=way)
        except SizeError:
            raise
        except TraceError as error:
            first = first or error
            waiting += [other for other in _others(way, error) if other not in tried and other not in waiting]
    assert first is not None
    raise first


def capture_as(
    module: nn.Module,
    calling: Calling,
    inputs: tuple[Tensor, ...],
    *,
    train: bool,
    how: How,
    to_train: bool = True,
) -> Captured:
    """The module's graph in one mode, in this way alone; if not `to_train`, of standard operators alone.

    Raises TraceError.
    """
    with prepared(module, train=train) as notes, contextlib.ExitStack() as stack:
        names: tuple[str, ...] = ()
        told = stack.enter_context(own_backward_kept()) if to_train else []
        if how.scripted:
            program = _script(module, calling, inputs)
        else:
            root = _plain(module)
            with flat_forward(root, calling) as seen:
                program = exported(root, inputs, free=how.free, gradients=how.gradients)
            names = tuple(seen[-1].tensors)
            notes += [f"its output of type {other} stays outside" for other in seen[-1].others]
        graph = unlift(program)
        put_in_place(graph)
    count = len(output_nodes(graph))
    if len(names) != count:
        names = ("output",) if count == 1 else tuple(f"output_{index}" for index in range(count))
    notes += [*told, *(rewrite(graph) for rewrite in GRAPH_REPAIRS.values())]
    graph.recompile()
    guards = tuple(program._guards_code or ())
    return Captured(graph, names, how, tuple(note for note in notes if note), _limits(program, inputs), guards)


def _limits(program: ExportedProgram, inputs: tuple[Tensor, ...]) -> dict[Any, tuple[int, int | None]]:
    """Where tracing followed one branch of code that asks how large something is, the sizes that lead there.

    On a GPU without cuDNN's own limits: the operator in the graph asks for them anew in every call.
    """
    most = _CUDNN if any(tensor.device.type != "cpu" for tensor in inputs) else sys.maxsize
    found = {}
    for symbol, span in program.range_constraints.items():
        upper = _whole(span.upper)
        found[symbol] = (_whole(span.lower) or 0, None if upper is not None and upper >= most else upper)
    return found


def _whole(bound: Any) -> int | None:
    """A bound as a number, None where there is none."""
    try:
        value = int(bound)
    except (TypeError, ValueError, OverflowError, AttributeError):  # what sympy and torch have for infinity
        return None
    return value if abs(value) < sys.maxsize - 1 else None


def _others(how: How, error: TraceError) -> list[How]:
    """What to try after a failure."""
    told = _told(error)
    if how.scripted:
        return []
    if how.gradients and any(words in told for words in _NO_VIEW):
        return [replace(how, gradients=False)]
    narrower = [replace(how, free="batch")] if how.free == "auto" else []
    return [*narrower, How("batch", scripted=True)] if depends_on_data(error) else narrower


def depends_on_data(error: TraceError) -> bool:
    """Whether a capture failed since the code asks for a tensor's values."""
    return _DATA_DEPENDENT.search(_told(error)) is not None


def _told(error: TraceError) -> str:
    return str(error.__cause__ or error)


def _script(module: nn.Module, calling: Calling, inputs: tuple[Tensor, ...]) -> ExportedProgram:
    """The module read by TorchScript, which keeps an `if` over a tensor's values. Raises TraceError."""
    args, keywords = calling.arguments(inputs)
    if keywords or len(args) != len(inputs):
        raise TraceError(f"{type(module).__name__} takes arguments by name, which TorchScript does not keep")
    try:
        with warnings.catch_warnings(), mock.patch.dict(module.__dict__):
            warnings.simplefilter("ignore")
            module.__dict__.pop("forward", None)  # a repair's; TorchScript reads the class's own code
            script = torch.jit.script(module)
    except Exception as error:  # the compiler raises what it likes
        raise TraceError(f"{type(module).__name__} cannot be read by TorchScript either: {reason(error)}") from error
    return capture_scripted(script, inputs)


def _plain(module: nn.Module) -> nn.Module:
    """The module, or for an fx graph one that shares all it has: torch.export runs a graph past its `forward`."""
    if not isinstance(module, fx.GraphModule):
        return module
    shell = nn.Module()
    shell.__dict__.update(module.__dict__)
    shell.__dict__["forward"] = module.forward
    return shell


@contextlib.contextmanager
def prepared(module: nn.Module, *, train: bool) -> Iterator[list[str | None]]:
    """The module in a mode and repaired, with what the repairs say; afterwards it is what it was."""
    with untouched(module, train=train), contextlib.ExitStack() as stack:
        yield [stack.enter_context(repair(module, train)) for repair in MODULE_REPAIRS.values()]


@contextlib.contextmanager
def untouched(module: nn.Module, *, train: bool) -> Iterator[None]:
    """The module in a mode; afterwards modes, buffers and attributes are what they were."""
    modules = list(module.modules())
    modes = [(m, m.training) for m in modules]
    attributes = [_Kept(m) for m in modules]
    module.train(not train)  # a model that caches values in one mode drops them when it passes through the other
    module.train(train)
    try:
        with buffers_kept(module):
            yield
    finally:
        for kept in attributes:
            kept.put_back()
        for m, mode in modes:
            m.training = mode


@contextlib.contextmanager
def buffers_kept(module: nn.Module) -> Iterator[None]:
    """Afterwards the buffers that were there before hold what they held."""
    made = [buffer for buffer in module.buffers() if not isinstance(buffer, UninitializedBuffer)]
    before = [(buffer, buffer.detach().clone()) for buffer in made]
    try:
        yield
    finally:
        with torch.no_grad():
            for buffer, value in before:
                if not torch.equal(buffer, value):  # an expanded one cannot be written to
                    buffer.copy_(value)


_CONTAINERS = (list, dict, set, deque, OrderedDict, defaultdict)


def _same(one: Any, other: Any) -> bool:
    """Whether two containers hold the very same things."""
    pairs = zip(*(held.values() if isinstance(held, dict) else held for held in (one, other)), strict=False)
    return len(one) == len(other) and all(a is b for a, b in pairs)


def _containers(values: Iterable[Any]) -> Iterator[Any]:
    """Every list, dict or set among the values, and within one, once."""
    waiting, seen = list(values), set()
    while waiting:
        value = waiting.pop()
        if type(value) in _CONTAINERS and id(value) not in seen:
            seen.add(id(value))
            yield value
            waiting += value.values() if isinstance(value, dict) else value


class _Kept:
    """A module's attributes, and what is in those that are lists, dicts and sets, one within another, too."""

    def __init__(self, module: nn.Module):
        self.module = module
        self.attributes = dict(module.__dict__)
        self.contents = [(value, value.copy()) for value in _containers(self.attributes.values())]

    def put_back(self) -> None:
        """Undo what the module did to itself while it was traced: what it kept may be no real tensor."""
        self.module.__dict__.clear()
        self.module.__dict__.update(self.attributes)
        for container, content in self.contents:
            if _same(container, content):
                continue
            container.clear()
            container.extend(content) if isinstance(container, list | deque) else container.update(content)
