"""Gives a traced model the names that the file it came from uses."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace

import sympy

from graftkit.core.signature import BATCH, Port, Signature
from graftkit.model import TracedModel


def named_as(traced: TracedModel, wanted: Signature) -> TracedModel:
    """The same model with the inputs', outputs' and free sizes' names of `wanted`, taken in order.

    A size that `wanted` fixes is fixed, but for the batch: whoever wrote the file had seen to no other.
    """
    ours = traced.signature
    if len(ours.inputs) != len(wanted.inputs) or len(ours.outputs) != len(wanted.outputs):
        return traced
    traced = with_fixed(traced, _fixed(ours.inputs, wanted.inputs))
    ours = traced.signature
    sizes = _sizes(ours.inputs, wanted.inputs)
    chosen = wanted.outputs[ours.output_names.index(ours.output)].name
    signature = Signature(
        tuple(_named(port, other.name, sizes) for port, other in zip(ours.inputs, wanted.inputs, strict=True)),
        tuple(_named(port, other.name, sizes) for port, other in zip(ours.outputs, wanted.outputs, strict=True)),
        chosen,
    )
    return replace(traced, signature=signature)


def with_fixed(traced: TracedModel, fixed: frozenset[str]) -> TracedModel:
    """The same model, the sizes in `fixed` being those of its example and no others."""
    if not fixed:
        return traced
    numbers: dict[str, int] = {}
    for tensor, port in zip(traced.inputs, traced.signature.inputs, strict=True):
        numbers |= {size: tensor.shape[dim] for dim, size in enumerate(port.shape) if size in fixed}

    def settle(size: int | str) -> int | str:
        if isinstance(size, int):
            return size
        return fixed_number(re.sub(r"[A-Za-z_]\w*", lambda m: str(numbers.get(m[0], m[0])), size))

    inputs, outputs = (
        tuple(replace(port, shape=tuple(map(settle, port.shape))) for port in ports)
        for ports in (traced.signature.inputs, traced.signature.outputs)
    )
    return replace(traced, signature=Signature(inputs, outputs, traced.signature.output))


def fixed_number(size: str) -> int | str:
    """What an expression of sizes comes to, where only numbers are left in it."""
    if not re.fullmatch(r"[\w\s+*/()-]+", size) or re.search(r"\w\(", size):
        return size  # a function of sizes stays as it is
    value = sympy.sympify(size, locals={name: sympy.Symbol(name) for name in re.findall(r"[A-Za-z_]\w*", size)})
    return int(value) if value.is_number and value == int(value) else str(value)


def _fixed(ours: Sequence[Port], wanted: Sequence[Port]) -> frozenset[str]:
    """Which of our free sizes the file has as a number."""
    return frozenset(
        size
        for port, other in zip(ours, wanted, strict=True)
        for size, was in zip(port.shape, other.shape, strict=False)
        if isinstance(size, str) and isinstance(was, int) and size != BATCH
    )


def _sizes(ours: Sequence[Port], wanted: Sequence[Port]) -> Mapping[str, str]:
    """What the file calls our free sizes."""
    names: dict[str, str] = {}
    for port, other in zip(ours, wanted, strict=True):
        for size, name in zip(port.shape, other.shape, strict=False):
            if isinstance(size, str) and isinstance(name, str) and name:
                names.setdefault(size, name)
    return names


def _named(port: Port, name: str, sizes: Mapping[str, str]) -> Port:
    def rename(size: int | str) -> int | str:
        return size if isinstance(size, int) else re.sub(r"[A-Za-z_]\w*", lambda m: sizes.get(m[0], m[0]), size)

    return Port(name, port.dtype, tuple(rename(size) for size in port.shape))
