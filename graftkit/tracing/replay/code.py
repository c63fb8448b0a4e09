"""Questions about a TorchScript graph, answered without running it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from graftkit.tracing.flags import flag_of

NORMS = frozenset({"aten::batch_norm", "aten::instance_norm"})

_PAIR = {1: "weight", 2: "bias"}
_NORM = {2: "weight", 3: "bias"}
# Which inputs are weights, by operator, and what they are called; a recurrent layer's are a list.
_CONVOLUTIONS = (
    "conv1d",
    "conv2d",
    "conv3d",
    "_convolution",
    "conv_transpose1d",
    "conv_transpose2d",
    "conv_transpose3d",
)
_WEIGHTS: Mapping[str, Mapping[int, str]] = {
    **{f"aten::{name}": _PAIR for name in (*_CONVOLUTIONS, "linear", "batch_norm", "prelu")},
    **{f"aten::{name}": _NORM for name in ("group_norm", "layer_norm")},
    **{f"aten::{name}": {2: "weights"} for name in ("gru", "lstm", "rnn_tanh", "rnn_relu")},
    "aten::addmm": {0: "bias", 2: "weight"},
    "aten::embedding": {0: "weight"},
    "aten::matmul": {1: "weight"},
    "aten::t": {0: "weight"},
}


@dataclass(frozen=True, eq=False)
class Code:
    """Holds what torch's own Python objects cannot copy: a graph, a script; a copy of a module shares it."""

    value: Any

    def __deepcopy__(self, memo: Any) -> Code:
        """Itself: it never changes."""
        return self


def nodes_of(block: Any) -> Iterator[Any]:
    """Every node of a graph or block, those in the blocks within included."""
    for node in block.nodes():
        yield node
        for inner in node.blocks():
            yield from nodes_of(inner)


def is_baked(graph: Any) -> bool:
    """Whether one mode is baked in: there are flags of a mode, and nothing asks which mode it is."""
    nodes = list(nodes_of(graph))
    asks = any(node.kind() == "prim::GetAttr" and node.s("name") == "training" for node in nodes)
    return not asks and any(map(_has_modes, nodes))


def _has_modes(node: Any) -> bool:
    """Whether a call may differ between the modes: a recurrent layer without dropout does not."""
    flag = flag_of(node.schema()) if node.kind().startswith("aten::") else None
    return flag is not None and (flag.rate is None or list(node.inputs())[flag.rate].toIValue() != 0.0)


@dataclass(frozen=True, eq=False)
class Frozen:
    """A constant that is a weight: what the graph calls it, and where a module would hold it."""

    constant: str
    owner: str
    leaf: str
    tensor: Tensor


def weights_frozen_in(graph: Any) -> list[Frozen]:
    """The floating-point constants that operators take as weights or biases, and no norm as its statistics."""
    found: list[Frozen] = []
    statistics = {
        value.debugName() for node in nodes_of(graph) if node.kind() in NORMS for value in list(node.inputs())[3:5]
    }
    counts: Counter[str] = Counter()
    for node in nodes_of(graph):
        kind, inputs = node.kind(), list(node.inputs())
        owner = f"{kind.removeprefix('aten::').strip('_')}_{counts[kind]}"
        before = len(found)
        for place, leaf in _WEIGHTS.get(kind, {}).items():
            for name, value, tensor in _constants(inputs[place], leaf):
                if value.debugName() not in statistics:
                    found.append(Frozen(value.debugName(), owner, name, tensor))
        counts[kind] += len(found) > before
    return found


def _constants(value: Any, leaf: str) -> Iterator[tuple[str, Any, Tensor]]:
    """(name, value, tensor) of the constant, or of each constant in the list."""
    node = value.node()
    if node.kind() == "prim::ListConstruct":
        for index, member in enumerate(node.inputs()):
            yield from _constants(member, f"{leaf}_{index}")
    elif node.kind() == "prim::Constant":
        tensor = value.toIValue()
        if isinstance(tensor, Tensor) and tensor.is_floating_point() and tensor.numel() > 1:
            yield leaf, value, tensor


@dataclass(frozen=True, eq=False)
class Step:
    """One node, with the names of what it reads and makes."""

    kind: str
    node: Any
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    blocks: tuple[Block, ...]


@dataclass(frozen=True, eq=False)
class Block:
    """A graph, or a branch or body within one: torch's own objects are slow to ask."""

    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    steps: tuple[Step, ...]

    def all_steps(self) -> Iterator[Step]:
        """Its steps, and those of the blocks within."""
        for step in self.steps:
            yield step
            for inner in step.blocks:
                yield from inner.all_steps()

    @property
    def always_raises(self) -> bool:
        """Whether it ends in an exception whatever its inputs are."""
        return any(step.kind == "prim::RaiseException" for step in self.steps)


def read_block(block: Any) -> Block:
    """A graph or block of torch's, asked once."""
    steps = (
        Step(node.kind(), node, _names(node.inputs()), _names(node.outputs()), tuple(map(read_block, node.blocks())))
        for node in block.nodes()
    )
    return Block(_names(block.inputs()), _names(block.outputs()), tuple(steps))


def outer_names(blocks: tuple[Block, ...]) -> list[str]:
    """The names that the blocks read and do not make themselves."""
    made: set[str] = set()
    read: dict[str, None] = {}
    for block in blocks:
        made.update(block.inputs)
        read.update(dict.fromkeys(block.outputs))
        for step in block.all_steps():
            made.update(step.outputs)
            read.update(dict.fromkeys(step.inputs))
            for inner in step.blocks:
                made.update(inner.inputs)
                read.update(dict.fromkeys(inner.outputs))
    return [name for name in read if name not in made]


def _names(values: Any) -> tuple[str, ...]:
    return tuple(value.debugName() for value in values)
