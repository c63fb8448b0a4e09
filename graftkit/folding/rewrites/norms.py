"""Writes the norms that MNN would take for others in a form that it does not put together."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import prod

import onnx_graphsurgeon as gs

from graftkit.folding.rewrites.channels import mean_axes
from graftkit.folding.rewrites.sizes import Dim, dims_of
from graftkit.folding.rewrites.tensors import nodes_of


def spell_norms(graph: gs.Graph) -> int:
    """Div(x, sqrt(mean(x^2) + eps)) * c becomes Div(x, sqrt(eps + mean(x^2))) * c, where c is not one number a place.

    MNN 3.6 makes one operator of a norm and the constant behind it, whose numbers it then reads as weights, one for
    each place that the mean is taken over, however many there are and wherever they belong: of one factor for all, as
    behind T5's last norm, beyond its end (in its converter's FuseLayerNormRMSGamm.cpp, the comparison of the sizes is
    commented out). Nor does it mind whether a mean's axes follow each other. It knows a norm by the order of this sum,
    which makes no difference to any number; norms of the usual form are left to it.
    """
    spelled = 0
    for add in nodes_of(graph, "Add"):
        mean, epsilon = add.inputs
        made = mean.inputs[0] if mean.inputs else None
        if made is None or made.op != "ReduceMean" or not isinstance(epsilon, gs.Constant):
            continue
        axes = mean_axes(made)
        if axes is not None and any(not _usual(norm, axes) for norm in _norms(add.outputs[0])):
            add.inputs = [epsilon, mean]
            spelled += 1
    return spelled


def _norms(variance: gs.Tensor) -> Iterator[gs.Tensor]:
    """What is divided by the root of this, in one step or by its reciprocal."""
    for root in _made(variance, "Sqrt"):
        for quotient in _made(root, "Div", "Reciprocal"):
            (node,) = quotient.inputs
            inverse = node.op == "Reciprocal" or isinstance(node.inputs[0], gs.Constant)
            yield from _made(quotient, "Mul") if inverse else (quotient,)


def _made(tensor: gs.Tensor, *operators: str) -> list[gs.Tensor]:
    return [reader.outputs[0] for reader in tensor.outputs if reader.op in operators]


def _usual(norm: gs.Tensor, axes: Sequence[int]) -> bool:
    """Whether the axes follow each other, and the constants behind it are a number a place of these axes."""
    dims = dims_of(norm)
    if dims is None:
        return False
    places = [axis % len(dims) for axis in axes]
    if places != list(range(places[0], places[0] + len(places))):
        return False
    return all(_fits(weight, dims, places) for weight in _parameters(norm))


def _parameters(norm: gs.Tensor) -> Iterator[gs.Constant]:
    """The constants that MNN takes for weights, and for shifts: these have to be as many numbers as the weights."""
    for scaled, weight in _behind(norm, "Mul", "Div"):
        yield weight
        yield from (shift for _, shift in _behind(scaled, "Add") if prod(shift.shape) == prod(weight.shape))


def _behind(tensor: gs.Tensor, *operators: str) -> Iterator[tuple[gs.Tensor, gs.Constant]]:
    """What these operators make of it and a constant, and the constant."""
    for result in _made(tensor, *operators):
        for given in result.inputs[0].inputs:
            if isinstance(given, gs.Constant):
                yield result, given


def _fits(constant: gs.Constant, dims: Sequence[int | Dim], places: Sequence[int]) -> bool:
    """Whether it has one number for each place along these axes, and the same for all others."""
    wanted = [size if at in places else 1 for at, size in enumerate(dims)]
    missing = len(dims) - len(constant.shape)
    return missing >= 0 and [1] * missing + list(constant.shape) == wanted
