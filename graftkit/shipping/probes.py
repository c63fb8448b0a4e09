"""On what inputs a file is compared with the model."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from graftkit import checking, tracing, training
from graftkit.checking import Batch
from graftkit.contracts import Data
from graftkit.core.signature import Port
from graftkit.model import GraftedModel


class Probe(NamedTuple):
    """Inputs in order; and which size, by name, is another than the example's, None where it is the batch at most."""

    inputs: Batch
    size: str | None = None


def probes(model: GraftedModel, ports: Sequence[Port], rows: Data | None) -> list[Probe]:
    """Batches of 1, 2 and 7 real rows and as many random ones, other sizes, and all validation rows.

    Args:
        ports: the file's inputs; what is free in them is varied.
        rows: data; where there are none, the example that the model was traced with counts as real.
    """
    example = _example(model)
    batch, given = _batch_size(ports, example)
    real = []
    if rows is not None:
        real = [model.arrange(inputs) for inputs, _ in training.batches(rows.validation, 256 if batch else given)]
    if batch is None:
        fitting = [each for each in real if [x.shape for x in each] == [x.shape for x in example]]
        return [Probe(each) for each in (example, checking.random_like(example), *fitting)]
    seven = tracing.resized(real[0] if real else example, ports, batch, max(checking.BATCHES))
    some = [
        tracing.resized(values, ports, batch, size)
        for values in (seven, checking.random_like(seven))
        for size in checking.BATCHES
    ]
    return [*map(Probe, some), *_other_sizes(model, ports, some[1], skip=batch), *map(Probe, real)]


def few_probes(model: GraftedModel, ports: Sequence[Port]) -> list[Probe]:
    """What a large model can be asked in a short time: its example, and one row of that."""
    example = _example(model)
    batch, _ = _batch_size(ports, example)
    return [Probe(example)] if batch is None else [Probe(example), Probe(tracing.resized(example, ports, batch, 1))]


def one_row(model: GraftedModel) -> dict[str, np.ndarray]:
    """The first row of the example by input name; all rows where their number is fixed."""
    ports = model.traced.signature.inputs
    return {port.name: row_of(x, port.shape).numpy() for port, x in zip(ports, model.traced.inputs, strict=True)}


def row_of(x: Tensor, shape: Sequence[int | str]) -> Tensor:
    """One row, or all of them where their number is fixed."""
    return x[:1].detach().cpu() if shape and isinstance(shape[0], str) else x.detach().cpu()


def on_device(model: GraftedModel, batch: Batch) -> tuple[Tensor, ...]:
    """A batch where the model's parameters are."""
    device = next((p.device for p in model.parameters()), torch.device("cpu"))
    return tuple(x.to(device) for x in batch)


def _other_sizes(model: GraftedModel, ports: Sequence[Port], two: Batch, *, skip: str) -> Iterator[Probe]:
    """Two rows with each further free size, in turn, smaller and larger, where the model itself takes that."""
    sizes = {
        size: tensor.shape[dim]
        for tensor, port in zip(two, ports, strict=True)
        for dim, size in enumerate(port.shape)
        if isinstance(size, str) and size.isidentifier() and size != skip
    }
    for size, now in sizes.items():
        step = min(now & -now, 32)  # networks that halve an image several times take multiples alone
        for other in (now - step if now > step else now // 2, now + step):
            if other > 1 and _takes(model, values := tracing.resized(two, ports, size, other)):
                yield Probe(values, size)


def _takes(model: GraftedModel, batch: Batch) -> bool:
    inputs = on_device(model, batch)
    try:
        with torch.no_grad():
            model.outputs(*inputs)
            if model.traced.source is not None:
                tracing.call_source(model.traced, inputs)
    except Exception:  # whatever the model's own code raises: nobody will give it this size
        return False
    return True


def _batch_size(ports: Sequence[Port], example: Batch) -> tuple[str | None, int]:
    """What the free number of rows is called, None where it is fixed; and how many rows the example has."""
    for port, tensor in zip(ports, example, strict=True):
        if port.shape and isinstance(port.shape[0], str):
            return port.shape[0], len(tensor)
    return None, next((len(tensor) for tensor in example if tensor.ndim), 1)


def _example(model: GraftedModel) -> Batch:
    return tuple(tensor.detach().cpu() for tensor in model.traced.inputs)
