"""Which inputs of the user's file are the model's, whatever they are called, in whatever order and whole numbers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import permutations

import numpy as np
import onnx
from onnx import helper

from graftkit.contracts import Feed, Run
from graftkit.core.signature import Port

_MANY = 5  # of more inputs only the order by names and that of the file are tried


@dataclass(frozen=True, eq=False)
class Inputs:
    """The file's inputs that are the model's.

    Attributes:
        names: what the file calls each, in the model's order.
        types: what the file reads, by its name.
    """

    names: tuple[str, ...]
    types: Mapping[str, np.dtype]

    def through(self, run: Run) -> Run:
        """A session that takes the model's types: one tool writes numbers of tokens as int32, another as int64."""

        def converted(feed: Feed) -> list[np.ndarray]:
            return list(run({name: value.astype(self.types[name], copy=False) for name, value in feed.items()}))

        return converted


def orders(model: onnx.ModelProto, ports: Sequence[Port]) -> Iterator[Inputs]:
    """The ways in which a file's inputs may be the model's: first as they are called, then as they lie."""
    given = _given(model)
    if len(given) != len(ports):
        return
    called = sorted(given, key=lambda value: _place(value.name, ports))
    found = permutations(given) if len(given) <= _MANY else (tuple(called), tuple(given))
    fitting = [each for each in found if all(map(_fits, each, ports))]
    for each in sorted(fitting, key=lambda each: -sum(v.name == p.name for v, p in zip(each, ports, strict=True))):
        yield Inputs(tuple(value.name for value in each), _types(each))


def by_name(model: onnx.ModelProto, ports: Sequence[Port]) -> Mapping[str, tuple[int, np.dtype]]:
    """The file's inputs that are called as the model's: the place among these, and what the file reads."""
    there = {value.name: value for value in _given(model) if _is_numbers(value)}
    found = {port.name: place for place, port in enumerate(ports) if port.name in there}
    return {name: (place, _types([there[name]])[name]) for name, place in found.items()}


def _given(model: onnx.ModelProto) -> list[onnx.ValueInfoProto]:
    constants = {tensor.name for tensor in model.graph.initializer}
    return [value for value in model.graph.input if value.name not in constants]


def _fits(value: onnx.ValueInfoProto, port: Port) -> bool:
    kind = value.type.tensor_type
    return _is_numbers(value) and (not kind.HasField("shape") or len(kind.shape.dim) == len(port.shape))


def _is_numbers(value: onnx.ValueInfoProto) -> bool:
    kind = value.type.tensor_type.elem_type
    return kind > 0 and helper.tensor_dtype_to_np_dtype(kind).kind in "biuf"


def _types(values: Sequence[onnx.ValueInfoProto]) -> dict[str, np.dtype]:
    return {value.name: helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type) for value in values}


def _place(name: str, ports: Sequence[Port]) -> int:
    return next((place for place, port in enumerate(ports) if port.name == name), len(ports))
