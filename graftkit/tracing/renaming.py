"""Gives a traced model the names that the file it came from uses."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace

from graftkit.core.signature import Port, Signature
from graftkit.model import TracedModel


def named_as(traced: TracedModel, wanted: Signature) -> TracedModel:
    """The same model with the inputs', outputs' and free sizes' names of `wanted`, taken in order."""
    ours = traced.signature
    if len(ours.inputs) != len(wanted.inputs) or len(ours.outputs) != len(wanted.outputs):
        return traced
    sizes = _sizes(ours.inputs, wanted.inputs)
    chosen = wanted.outputs[ours.output_names.index(ours.output)].name
    signature = Signature(
        tuple(_named(port, other.name, sizes) for port, other in zip(ours.inputs, wanted.inputs, strict=True)),
        tuple(_named(port, other.name, sizes) for port, other in zip(ours.outputs, wanted.outputs, strict=True)),
        chosen,
    )
    return replace(traced, signature=signature)


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
