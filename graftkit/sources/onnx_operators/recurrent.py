"""LSTM, GRU and RNN as torch's own recurrent operators; forms that torch does not have are refused."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from graftkit.sources.onnx_operators.call import Call, Operator, UnsupportedError, given
from graftkit.sources.onnx_operators.numbers import Value, as_tensor

# In which order torch keeps the gates that ONNX keeps in its own: of (input, output, forget, cell) the first, third,
# fourth and second; of (update, reset, hidden) the second, first and third.
GATES: Mapping[str, tuple[int, ...]] = {"LSTM": (0, 2, 3, 1), "GRU": (1, 0, 2), "RNN": (0,)}
WEIGHTS = ("ih", "hh", "bias")  # what W, R and B weigh
_USUAL: Mapping[str, tuple[str, ...]] = {
    "LSTM": ("Sigmoid", "Tanh", "Tanh"),
    "GRU": ("Sigmoid", "Tanh"),
    "RNN": ("Tanh",),
}


def torch_weights(kind: str, role: str, value: Tensor) -> dict[str, Tensor]:
    """Weights by torch's names, from W [directions, gates * H, inputs], R [.., H] or B [.., 2 * gates * H]."""
    found: dict[str, Tensor] = {}
    for direction, own in enumerate(value):
        end = "_reverse" if direction else ""
        names = (f"weight_{role}{end}",) if role != "bias" else (f"bias_ih{end}", f"bias_hh{end}")
        found |= {name: _ordered(kind, part) for name, part in zip(names, own.chunk(len(names)), strict=True)}
    return found


def check_form(kind: str, call: Call, inputs: Sequence[str]) -> None:
    """Raise UnsupportedError where torch has no such layer."""
    directions = 2 if call.get("direction", "forward") == "bidirectional" else 1
    if [name.capitalize() for name in call.get("activations", _USUAL[kind] * directions)] != [
        *_USUAL[kind]
    ] * directions:
        raise UnsupportedError(f"its activations are {', '.join(call.get('activations'))}")
    if "clip" in call.attributes or call.get("input_forget", 0):
        raise UnsupportedError("it clips its gates or couples them")
    if kind == "GRU" and not call.get("linear_before_reset", 0):
        raise UnsupportedError("it resets before the product (linear_before_reset=0)")
    if len(inputs) > 4 and inputs[4]:
        raise UnsupportedError("rows have lengths of their own")
    if len(inputs) > 7 and inputs[7]:
        raise UnsupportedError("it has peepholes")


def _recurrent(kind: str) -> Operator:
    def run(call: Call, value: Value, *states: Value | None) -> tuple[Tensor, ...]:
        x = as_tensor(value)
        x = x.transpose(0, 1) if call.get("layout", 0) else x
        reverse, directions = call.get("direction", "forward"), 2 if hasattr(call, "weight_ih_reverse") else 1
        x = x.flip(0) if reverse == "reverse" else x
        hidden: int = call.get_parameter("weight_hh").shape[1]
        shape = (directions, x.shape[1], hidden)
        begun = [_state(call, given(states, place), shape, x) for place in range(2 if kind == "LSTM" else 1)]
        found = _run(kind, x, begun, [*call.parameters(recurse=False)], directions, call.training)
        y, *last = found
        y = y.reshape(*y.shape[:2], directions, hidden).transpose(1, 2)
        y = y.flip(0) if reverse == "reverse" else y
        if call.get("layout", 0):
            return (y.permute(2, 0, 1, 3), *(state.transpose(0, 1) for state in last))
        return (y, *last)

    return run


def _run(
    kind: str, x: Tensor, begun: list[Tensor], weights: list[Tensor], directions: int, training: bool
) -> tuple[Tensor, ...]:
    biases, both = len(weights) > 2 * directions, directions == 2
    if kind == "LSTM":
        return torch.lstm(x, begun, weights, biases, 1, 0.0, training, both, False)
    layer: Any = torch.gru if kind == "GRU" else torch.rnn_tanh
    return layer(x, begun[0], weights, biases, 1, 0.0, training, both, False)  # type: ignore[no-any-return]


def _state(call: Call, state: Value | None, shape: tuple[Any, ...], x: Tensor) -> Tensor:
    """The state to begin with; one row in the file serves a batch of any size."""
    if state is None:
        return x.new_zeros(shape)
    found: Tensor = as_tensor(state)
    found = found.transpose(0, 1) if call.get("layout", 0) else found
    return found.expand(shape) if isinstance(found.shape[1], int) and found.shape[1] == 1 else found


def _ordered(kind: str, weight: Tensor) -> Tensor:
    parts = weight.chunk(len(GATES[kind]))
    return torch.cat([parts[place] for place in GATES[kind]])


RECURRENT: Mapping[str, Operator] = {kind: _recurrent(kind) for kind in GATES}
