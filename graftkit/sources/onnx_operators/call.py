"""One node of an ONNX graph as a module: its attributes, its weights, its constants, and the function that it is."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from onnx import AttributeProto, NodeProto
from torch import nn

from graftkit.sources.onnx_operators.numbers import Numbers, Value

# Where an input comes from: an argument's place, the name of a parameter or buffer, a constant, or nowhere.
Origin = int | str | Numbers | None
Operator = Callable[..., Any]  # (call, *inputs) -> what the node gives: one value, or a tuple of them

_MOST_NUMBERS = 2**31  # in one tensor that a node makes from sizes: eight gigabytes


class UnsupportedError(Exception):
    """A node has a form that is not converted; says which."""


class TooLargeError(UnsupportedError):
    """A node would make a tensor that no machine could hold, with the sizes that it was given."""


class Call(nn.Module):
    """A node. What it computes is `operator(self, *inputs)`.

    Attributes:
        opset: the version of the operators that the file uses.
        attributes: by name: numbers, texts, lists of them, and small tensors as `Numbers`.
        outputs: how many the node has, those without a name included.
        turned: by name of a parameter or buffer, the order of axes in which this node reads it: another node holds it.
    """

    def __init__(self, node: NodeProto, operator: Operator, opset: int, constants: Mapping[str, Numbers]):
        super().__init__()
        self.operator = operator
        self.opset = opset
        self.outputs = len(node.output)
        self.attributes = {attribute.name: _plain(attribute, constants) for attribute in node.attribute}
        self.origins: tuple[Origin, ...] = ()
        self.turned: dict[str, tuple[int, ...]] = {}

    def forward(self, *arguments: Any) -> Any:
        """What the node gives for the values of its inputs that are not its own."""
        found = self.operator(self, *(self._input(origin, arguments) for origin in self.origins))
        return found[0] if self.outputs == 1 and isinstance(found, tuple) else found

    def _input(self, origin: Origin, arguments: Sequence[Any]) -> Any:
        if isinstance(origin, int):
            return arguments[origin]
        if not isinstance(origin, str):
            return origin
        held = getattr(self, origin)
        return held.permute(self.turned[origin]) if origin in self.turned else held

    def get(self, name: str, default: Any = None) -> Any:
        """An attribute, or the default where it is not given."""
        return self.attributes.get(name, default)

    def extra_repr(self) -> str:
        """Shown when the model is printed."""
        return str(getattr(self.operator, "__name__", self.operator))


def given(inputs: Sequence[Value | None], place: int) -> Value | None:
    """An optional input, None where the node does not have it."""
    return inputs[place] if place < len(inputs) else None


def affordable(sizes: Sequence[Any]) -> Sequence[Any]:
    """The sizes of a tensor that is to be made. Raises TooLargeError where no machine could hold it."""
    known = [size for size in sizes if isinstance(size, int)]
    if any(size < 0 for size in known) or math.prod(known) > _MOST_NUMBERS:
        raise TooLargeError(f"it makes a tensor of the sizes {list(sizes)}")
    return sizes


def _plain(attribute: AttributeProto, constants: Mapping[str, Numbers]) -> Any:
    match attribute.type:
        case AttributeProto.STRING:
            return attribute.s.decode("utf-8", errors="replace")
        case AttributeProto.STRINGS:
            return [text.decode("utf-8", errors="replace") for text in attribute.strings]
        case AttributeProto.TENSOR:
            return constants[attribute.name]
        case AttributeProto.INT:
            return attribute.i
        case AttributeProto.FLOAT:
            return attribute.f
        case AttributeProto.INTS:
            return list(attribute.ints)
        case AttributeProto.FLOATS:
            return list(attribute.floats)
    return None


def dtype_named(call: Call, name: str, default: torch.dtype) -> torch.dtype:
    """The type that an attribute names by ONNX's number for it."""
    from graftkit.sources.onnx_tensors import DTYPES

    number = call.get(name)
    if number is not None and number not in DTYPES:
        raise UnsupportedError(f"it wants the type number {number}, which torch does not have")
    return default if number is None else DTYPES[number]
