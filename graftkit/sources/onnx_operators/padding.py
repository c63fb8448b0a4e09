"""Padding."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor
from torch.nn import functional as F

from graftkit.sources.onnx_operators.call import Call, Operator, UnsupportedError, affordable, given
from graftkit.sources.onnx_operators.numbers import Value, as_tensor, floats, integers

_MODES = {"constant": "constant", "reflect": "reflect", "edge": "replicate", "wrap": "circular"}


def pad(call: Call, value: Value, *rest: Value | None) -> Tensor:
    """Pad: amounts and value are attributes before opset 11; axes come with opset 18."""
    x, mode = as_tensor(value), call.get("mode", "constant")
    amounts = integers(rest[0]) if rest and rest[0] is not None else call.get("pads")
    fill, axes = given(rest, 1), given(rest, 2)
    number = call.get("value", 0.0) if fill is None else floats(fill)[0]
    places = list(range(x.ndim)) if axes is None else [axis % x.ndim for axis in integers(axes)]
    before, after = [0] * x.ndim, [0] * x.ndim
    for place, axis in enumerate(places):
        before[axis], after[axis] = amounts[place], amounts[place + len(places)]
    affordable([b + n + a for b, n, a in zip(before, x.shape, after, strict=True)])
    pairs = [(b, a) for b, a in zip(before, after, strict=True)][::-1]
    if mode == "constant":
        return F.pad(x, [n for pair in pairs for n in pair], value=number)
    return _padded_by_itself(x, pairs, _MODES[mode])


def _padded_by_itself(x: Tensor, pairs: list[tuple[Any, Any]], mode: str) -> Tensor:
    """By reflection, repetition or wrapping, which torch does for the last axes, behind two others."""
    while pairs and pairs[-1] == (0, 0):
        pairs.pop()
    if len(pairs) > 3:
        raise UnsupportedError(f"it pads {len(pairs)} axes by what is in them")
    if not pairs:
        return x
    around, padded = x.shape[: x.ndim - len(pairs)], x.shape[x.ndim - len(pairs) :]
    found = F.pad(x.reshape(1, -1, *padded), [n for pair in pairs for n in pair], mode=mode)
    return found.reshape(*around, *found.shape[2:])


PADDING: Mapping[str, Operator] = {"Pad": pad}
